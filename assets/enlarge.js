// Pictures with [data-zoom] open large; the arrow keys lead to their neighbours.
element.addEventListener('click', (event) => {
  const picture = event.target.closest('[data-zoom]');
  if (picture) {
    const all = [...element.querySelectorAll('[data-zoom]')];
    const dialog = document.createElement('dialog'), image = document.createElement('img');
    const words = document.createElement('p');
    dialog.className = 'dr-large';
    dialog.append(image, words);
    let at = all.indexOf(picture);
    const show = () => {
      image.src = all[at].dataset.zoom;
      image.alt = words.innerText = all[at].dataset.title;
    };
    show();
    dialog.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => dialog.remove());
    dialog.addEventListener('keydown', (key) => {
      const next = at + ({ArrowRight: 1, ArrowLeft: -1}[key.key] || 0);
      if (next !== at && all[next]) { at = next; show(); }
    });
    (document.querySelector('.gradio-container') || document.body).append(dialog);
    dialog.showModal();
  }
});
