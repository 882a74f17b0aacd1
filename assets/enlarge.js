// Pictures that a click enlarges, one beside another of its group. Runs once for each panel that holds [data-zoom].
// A picture says: data-zoom, its address; data-label and data-prompt, its words; data-group, what it can stand beside;
// data-base, whether it is the one that its group stands beside at first.
{
  const make = (name, className, parent, words) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (words) made.textContent = words;
    if (parent) parent.append(made);
    return made;
  };
  // Outside the panel: what the panel shows is replaced while the dialog is open.
  const dialog = make('dialog', 'dr-zoom', document.body);
  dialog.setAttribute('aria-label', 'Enlarged picture');
  const bar = make('div', 'dr-row', dialog);
  const control = (words, name, way) => {
    const made = make('button', 'dr-button', bar, words);
    made.type = 'button';
    made.setAttribute('aria-label', name);
    made.addEventListener('click', way);
    return made;
  };
  const ways = {
    ArrowLeft: control('\u2190', 'Previous picture', () => go(-1, 0)),
    ArrowRight: control('\u2192', 'Next picture', () => go(1, 0)),
    ArrowUp: control('\u2191', 'Picture above', () => go(0, -1)),
    ArrowDown: control('\u2193', 'Picture below', () => go(0, 1)),
  };
  const beside = make('label', '', bar, 'Beside it ');
  const choice = make('select', 'dr-field', beside);
  const closer = control('Look closer', 'Look closer', () => look());
  control('Close', 'Close', () => dialog.close()).classList.add('last');
  const figures = make('div', 'dr-pair', dialog);
  const words = make('p', 'dr-quiet', dialog);
  let current = null, wished = null;  // the picture shown; the name of the one beside it, '' for none, null for the base

  const all = () => [...element.querySelectorAll('[data-zoom]')];
  // The panel may have been drawn anew since: the same picture there.
  const here = () => all().find((one) => one.dataset.zoom === current.dataset.zoom) || current;

  // The place of a picture: its line (a table's row, or a list), and the columns that it takes there.
  const line = (shot) => shot.closest('tr, ul');
  const columns = (shot) => {
    let first = 0;
    const cell = shot.closest('td');
    for (const one of cell?.parentNode.cells || []) {
      if (one === cell) return [first, first + one.colSpan];
      first += one.colSpan;
    }
    return [0, 0];
  };
  const neighbour = (right, down) => {
    const shot = here(), shots = all(), own = shots.filter((one) => line(one) === line(shot));
    if (right) return own[own.indexOf(shot) + right];
    const [from, to] = columns(shot), lines = [...new Set(shots.map(line))];
    const rest = down > 0 ? lines.slice(lines.indexOf(line(shot)) + 1) : lines.slice(0, lines.indexOf(line(shot))).reverse();
    for (const other of to ? rest : []) {
      const found = shots.find((one) => line(one) === other && columns(one)[0] < to && columns(one)[1] > from);
      if (found) return found;
    }
  };
  const go = (right, down) => { const to = neighbour(right, down); if (to) show(to); };

  // What tells a picture from the others of its group: its label, and its prompt where they have several.
  const group = (shot) => all().filter((one) => one.dataset.group === shot.dataset.group);
  const name = (shot) => {
    const several = group(shot).some((one) => one.dataset.prompt !== shot.dataset.prompt);
    return several ? `${shot.dataset.label}: ${shot.dataset.prompt}` : shot.dataset.label;
  };
  const figure = (shot) => {
    const made = make('figure', '', figures);
    const picture = make('img', '', make('div', '', made));
    picture.src = shot.dataset.zoom;
    picture.alt = shot.dataset.label + ': ' + shot.dataset.prompt;
    make('figcaption', '', made, name(shot));
  };
  const show = (shot) => {
    current = shot;
    const others = group(shot).filter((one) => one !== shot);
    const names = [...new Set(others.map(name))];
    const other = others.find((one) => wished === null ? 'base' in one.dataset : name(one) === wished);
    choice.replaceChildren(new Option('nothing', ''), ...names.map((one) => new Option(one, one)));
    choice.value = other ? name(other) : '';
    figures.replaceChildren();
    if (other) figure(other);
    figure(shot);
    words.textContent = shot.dataset.prompt;
    for (const [key, right, down] of [['ArrowLeft', -1, 0], ['ArrowRight', 1, 0], ['ArrowUp', 0, -1], ['ArrowDown', 0, 1]])
      ways[key].setAttribute('aria-disabled', !neighbour(right, down));  // a disabled one would lose the focus
  };

  // Looking closer enlarges the same place of both pictures: where the pointer is, else the middle.
  const look = (wanted = !dialog.classList.contains('closer')) => {
    dialog.classList.toggle('closer', wanted);
    closer.setAttribute('aria-pressed', wanted);
    figures.style.removeProperty('--at');
  };
  figures.addEventListener('pointermove', (event) => {
    const frame = event.target.closest('figure > div')?.getBoundingClientRect();
    if (!frame) return;
    const share = (at, from, size) => (100 * (at - from) / size).toFixed(1) + '% ';
    figures.style.setProperty('--at', share(event.clientX, frame.x, frame.width) + share(event.clientY, frame.y, frame.height));
  });
  figures.addEventListener('click', (event) => {
    if (!event.target.closest('figure > div')) return;
    const at = figures.style.getPropertyValue('--at');
    look();
    figures.style.setProperty('--at', at);
  });

  choice.addEventListener('change', () => { wished = choice.value; show(here()); });
  dialog.addEventListener('keydown', (event) => {
    if (event.target === choice || !ways[event.key]) return;
    event.preventDefault();
    ways[event.key].click();
  });
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener('close', () => { look(false); here().focus(); });  // at the picture that was looked at last
  element.addEventListener('click', (event) => {
    const shot = event.target.closest('[data-zoom]');
    if (!shot) return;
    show(shot);
    dialog.showModal();
  });
}
