// The form in which a peer prints a span, so that every field can be compared as text; `spans.py`
// says what it is.
'use strict';

/** The kind and value of a double: the hexadecimal digits of its bits. */
function double(number) {
  const bits = Buffer.alloc(8);
  bits.writeDoubleBE(number);
  return ['double', bits.toString('hex')];
}

/** Prints documents, one a line, and calls `done` once they have left. */
function write(documents, done) {
  const lines = documents.map((document) => JSON.stringify(document) + '\n');
  process.stdout.write(lines.join(''), done);
}

module.exports = { double, write };
