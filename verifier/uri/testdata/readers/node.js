// Reads and answers as php.php does, for Node's querystring, the searchParams of
// a URL, qs as it is by default, and qs with dots as Express can have it.
const querystring = require('querystring');
const qs = require('qs');

function told(value) {
  if (value === undefined) return '-';
  if (typeof value !== 'string') return 'a';
  return 's' + Buffer.from(value, 'utf8').toString('hex');
}

function own(all, name) {
  return told(Object.prototype.hasOwnProperty.call(all, name) ? all[name] : undefined);
}

function params(query, name) {
  const values = new URL('http://h/?' + query).searchParams.getAll(name);
  return told(values.length > 1 ? values : values[0]);
}

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const [query, name] = line.split(' ').map((part) => Buffer.from(part, 'hex').toString('latin1'));
  const answers = [
    own(querystring.parse(query), name),
    params(query, name),
    own(qs.parse(query), name),
    own(qs.parse(query, { allowDots: true, allowPrototypes: true }), name),
  ];
  process.stdout.write(answers.join(' ') + '\n');
});
