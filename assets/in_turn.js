// Events that must not overtake each other (TURNS: number -> name) are asked for one after the other. The clocks among
// them (CLOCKS: number -> outputs) neither wait nor are waited for: where something else is asked for before a clock's
// answer has come, that answer is of a state that is gone, and nothing is shown of it. The clock comes again.
(() => {
  const ask = window.fetch;
  const last = {};  // name -> the answer that is awaited
  const count = {};  // name -> how many have been asked for
  const awaited = {};  // name -> how many of them are not answered yet
  const numberOf = (address, options) => {
    const asked = new URL(address, window.location).pathname.endsWith('/run/predict');
    return asked && typeof options?.body === 'string' ? JSON.parse(options.body).fn_index : undefined;
  };
  const whole = async (address, options) => {
    const heard = await ask(address, options);
    return new Response(await heard.blob(), heard);  // all of it has come when the next one is asked for
  };
  const nothing = (outputs) => {
    const data = Array(outputs).fill({__type__: 'update'});
    return new Response(JSON.stringify({data}), {headers: {'Content-Type': 'application/json'}});
  };
  const tick = async (name, outputs, address, options) => {
    const before = count[name];
    if (awaited[name]) return nothing(outputs);
    const answer = await whole(address, options);
    return count[name] === before ? answer : nothing(outputs);
  };
  window.fetch = (address, options) => {
    const number = numberOf(address, options), name = TURNS[number];
    if (!name) return ask(address, options);
    if (number in CLOCKS) return tick(name, CLOCKS[number], address, options);
    count[name] = (count[name] || 0) + 1;
    awaited[name] = (awaited[name] || 0) + 1;
    const next = () => whole(address, options).finally(() => { awaited[name] -= 1; });
    const answer = (last[name] || Promise.resolve()).then(next, next);
    last[name] = answer;
    return answer;
  };
})();
