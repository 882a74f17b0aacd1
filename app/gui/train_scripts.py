"""What the Train page does in the browser: the filter of the settings, their states, the cards' arrow keys."""

FORM = r"""
const show = () => {  // what the server says stands in the fields; what was found stays found
  for (const one of element.querySelectorAll('[data-shown]')) {
    if (one.lastShown === one.dataset.shown) continue;
    one.lastShown = one.dataset.shown;
    const text = one.dataset.shown;
    if (one.type === 'checkbox') { one.checked = text === 'true'; continue; }
    if (one.options && ![...one.options].some((option) => option.value === text)) one.append(new Option(text));
    if (one.value !== text) one.value = text;
  }
  filter();
};
const beginsIn = (word) => new RegExp('(^|[^a-z0-9])' + word.replace(/[^a-z0-9_]/gi, '\\$&'), 'i');
const filter = () => {
  const typed = element.querySelector('.dr-filter')?.value || '';
  const wanted = typed.split(' ').filter(Boolean).map(beginsIn);  // "noise" does not mean "denoiser"
  const changed = element.querySelector('.dr-only-changed')?.checked;
  const fields = [...element.querySelectorAll('.dr-setting')];
  const fits = (one) => (!changed || one.classList.contains('changed'))
    && wanted.every((word) => word.test(one.textContent + ' ' + one.dataset.words));
  for (const one of fields) one.hidden = !fits(one);
  for (const group of element.querySelectorAll('.dr-group')) {
    group.hidden = !group.querySelector('.dr-setting:not([hidden])');
  }
  const left = fields.filter((one) => !one.hidden).length;
  const count = element.querySelector('.dr-count');
  if (count) count.textContent = left < fields.length ? `${left} of ${fields.length}` : `${fields.length} settings`;
  const none = element.querySelector('.dr-none');
  if (none) none.hidden = left > 0;
};
element.addEventListener('input', (event) => {
  if (event.target.matches('.dr-filter, .dr-only-changed')) filter();
});
element.addEventListener('darkroom:states', show);
watch('value', show);
show();
"""
STATES = """
const apply = () => {  // so that one change does not send the whole form again
  const states = JSON.parse(element.querySelector('[data-states]')?.dataset.states || '{}');
  let form = null;
  for (const [id, {shown, back, wrong}] of Object.entries(states)) {
    const control = document.getElementById(id);
    const field = control?.closest('.dr-setting');
    if (!field) continue;
    form = field.closest('.dr-form');
    control.dataset.shown = shown;
    control.setAttribute('aria-invalid', wrong !== '');
    field.classList.toggle('changed', back !== '');
    field.classList.toggle('wrong', wrong !== '');
    for (const [part, html] of [['.dr-way-back', back], ['.dr-wrong', wrong]]) {
      const place = field.querySelector(part);
      if (place.lastHtml !== html) { place.innerHTML = html; place.lastHtml = html; }
    }
  }
  form?.dispatchEvent(new Event('darkroom:states', {bubbles: true}));
};
watch('value', apply);
"""
CARDS = """
element.addEventListener('keydown', (event) => {  // arrow keys move within a group of choices
  const cards = [...element.querySelectorAll('[role=radio]')];
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  const here = cards.indexOf(event.target);
  if (!step || here < 0) return;
  event.preventDefault();
  const next = cards[(here + step + cards.length) % cards.length];
  next.focus(); next.click();
});
"""
