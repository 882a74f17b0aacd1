// A sentence of the server's that Gradio's page does not show: of an event that does not go through its queue.
(() => {
  const ask = window.fetch;
  const tell = (words) => {
    let place = document.querySelector('.dr-told');
    if (!place) {
      place = document.createElement('div');
      place.className = 'dr-told';
      place.setAttribute('role', 'alert');
      document.body.append(place);
    }
    const line = document.createElement('p');
    line.textContent = words;
    const close = document.createElement('button');
    close.type = 'button';
    close.className = 'dr-button';
    close.textContent = 'Close';
    close.addEventListener('click', () => line.parentNode.remove());
    const notice = document.createElement('div');
    notice.className = 'dr-notice error';
    notice.append(line, close);
    place.replaceChildren(notice);
  };
  window.fetch = async (...asked) => {
    const answer = await ask(...asked);
    if (answer.status === 403) {  // the app has been started anew, with another key
      tell('The app was started anew. Go on in the window that it has opened: then this one can be used again, too.');
    }
    if (answer.status === 203) {
      answer.clone().json().then(({error}) => {
        if (error) tell(new DOMParser().parseFromString(error, 'text/html').body.textContent);
      }, () => {});
    }
    return answer;
  };
})();
