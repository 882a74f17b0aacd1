// Pictures that a click enlarges, one beside another of its row. Runs once for each panel that holds [data-zoom].
const make = (name, className, parent, words) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (words) made.textContent = words;
  if (parent) parent.append(made);
  return made;
};
// Outside the panel: what the panel shows is replaced while the dialog is open.
const dialog = make('dialog', 'dr-zoom', document.body);
dialog.setAttribute('aria-label', 'Enlarged sample');
const bar = make('div', 'dr-row', dialog);
const control = (words, name, way) => {
  const made = make('button', 'dr-button', bar, words);
  made.type = 'button';
  made.setAttribute('aria-label', name);
  made.addEventListener('click', way);
  return made;
};
const previous = control('\u2190', 'Previous picture', () => move(-1));
const next = control('\u2192', 'Next picture', () => move(1));
const beside = make('label', '', bar, 'Beside it ');
const choice = make('select', 'dr-field', beside);
const close = control('Close', 'Close', () => dialog.close());
close.classList.add('last');
const figures = make('div', 'dr-pair', dialog);
const words = make('p', 'dr-quiet', dialog);
let current = null, wished = null;  // the picture shown; the label of the one beside it, "" for none

const row = (shot) => [...element.querySelectorAll('[data-zoom]')].filter((one) => one.dataset.row === shot.dataset.row);
const figure = (shot) => {
  const made = make('figure', '', figures);
  const picture = make('img', '', made);
  picture.src = shot.dataset.zoom;
  picture.alt = shot.dataset.label + ': ' + shot.dataset.prompt;
  make('figcaption', '', made, shot.dataset.label);
};
const show = (shot) => {
  current = shot;
  const all = row(shot), at = all.indexOf(shot);
  const others = all.filter((one) => one !== shot);
  choice.replaceChildren(new Option('nothing', ''), ...others.map((one) => new Option(one.dataset.label, one.dataset.label)));
  const other = others.find((one) => one.dataset.label === wished);
  choice.value = other ? wished : '';
  figures.replaceChildren();
  if (other) figure(other);
  figure(shot);
  words.textContent = shot.dataset.prompt;
  previous.disabled = at <= 0;
  next.disabled = at < 0 || at >= all.length - 1;
};
const move = (by) => {
  const all = row(current), to = all[all.indexOf(current) + by];
  if (to) show(to);
};
const change = (by) => {  // the same step of the prompt above or below
  const rows = [...new Set([...element.querySelectorAll('[data-zoom]')].map((one) => one.dataset.row))];
  const to = rows[rows.indexOf(current.dataset.row) + by];
  const shot = [...element.querySelectorAll('[data-zoom]')]
    .find((one) => one.dataset.row === to && one.dataset.label === current.dataset.label);
  if (shot) show(shot);
};
choice.addEventListener('change', () => { wished = choice.value; show(current); });
dialog.addEventListener('keydown', (event) => {
  if (event.target === choice) return;
  const way = {ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => change(-1), ArrowDown: () => change(1)}[event.key];
  if (way) { event.preventDefault(); way(); }
});
dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
element.addEventListener('click', (event) => {
  const shot = event.target.closest('[data-zoom]');
  if (!shot) return;
  if (wished === null) wished = 'Base';
  show(shot);
  dialog.showModal();
});

// The newest column stays in sight, unless a person has scrolled away from it.
let follows = true;
const scroller = () => element.querySelector('.dr-samples');
const follow = () => { const grid = scroller(); if (grid && follows) grid.scrollLeft = grid.scrollWidth; };
element.addEventListener('scroll', () => {
  const grid = scroller();
  if (grid && grid.clientWidth) follows = grid.scrollLeft + grid.clientWidth >= grid.scrollWidth - 24;
}, true);
new ResizeObserver(follow).observe(element);
watch('value', follow);
