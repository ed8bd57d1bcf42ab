//! Messages no encoder writes but every decoder must read: fields in any order and number, singular
//! messages in pieces, oneofs set twice, padded lengths, unknown fields and groups everywhere.

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    Varint,
    Fixed64,
    Fixed32,
    /// Of this length, so that ids can be right.
    Bytes(usize),
    Text,
    Message(&'static Schema),
}

/// Field numbers and their types.
pub(crate) struct Schema(&'static [(u32, Type)]);

use Type::{Bytes, Fixed32, Fixed64, Message, Text, Varint};

pub(crate) static REQUEST: Schema = Schema(&[(1, Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Schema =
    Schema(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_SPANS)), (3, Text)]);
static RESOURCE: Schema =
    Schema(&[(1, Message(&KEY_VALUE)), (2, Varint), (3, Message(&ENTITY_REF))]);
static ENTITY_REF: Schema = Schema(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
static SCOPE_SPANS: Schema = Schema(&[(1, Message(&SCOPE)), (2, Message(&SPAN)), (3, Text)]);
static SCOPE: Schema = Schema(&[(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static SPAN: Schema = Schema(&[
    (1, Bytes(16)),
    (2, Bytes(8)),
    (3, Text),
    (4, Bytes(8)),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    // Thrice, as it leads to the deepest messages.
    (9, Message(&KEY_VALUE)),
    (9, Message(&KEY_VALUE)),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Message(&EVENT)),
    (12, Varint),
    (13, Message(&LINK)),
    (14, Varint),
    (15, Message(&STATUS)),
    (16, Fixed32),
]);
static EVENT: Schema = Schema(&[(1, Fixed64), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static LINK: Schema = Schema(&[
    (1, Bytes(16)),
    (2, Bytes(8)),
    (3, Text),
    (4, Message(&KEY_VALUE)),
    (5, Varint),
    (6, Fixed32),
]);
static STATUS: Schema = Schema(&[(2, Text), (3, Varint)]);
static KEY_VALUE: Schema = Schema(&[(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)]);
static ANY_VALUE: Schema = Schema(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&ARRAY)),
    (6, Message(&MAP)),
    (7, Bytes(3)),
    (8, Varint),
]);
static ARRAY: Schema = Schema(&[(1, Message(&ANY_VALUE))]);
static MAP: Schema = Schema(&[(1, Message(&KEY_VALUE))]);

/// Cooks messages from random numbers; where they run out, messages stay small.
pub(crate) struct Cook<'a> {
    numbers: &'a [u8],
}

impl<'a> Cook<'a> {
    pub(crate) fn new(numbers: &'a [u8]) -> Self {
        Self { numbers }
    }

    fn pick(&mut self, below: usize) -> usize {
        let Some((&number, rest)) = self.numbers.split_first() else { return 0 };
        self.numbers = rest;
        usize::from(number) % below
    }

    pub(crate) fn message(&mut self, schema: &'static Schema) -> Vec<u8> {
        let mut out = Vec::new();
        if std::ptr::eq(schema, &SPAN) && self.pick(8) > 0 {
            self.field(1, Bytes(16), &mut out);
            self.field(2, Bytes(8), &mut out);
        }
        for _ in 0..self.pick(9) {
            if self.pick(6) == 0 {
                self.unknown(&mut out);
            } else {
                let (number, kind) = schema.0[self.pick(schema.0.len())];
                self.field(number, kind, &mut out);
            }
        }
        out
    }

    fn field(&mut self, number: u32, kind: Type, out: &mut Vec<u8>) {
        let wire_type = match kind {
            Varint => 0,
            Fixed64 => 1,
            Fixed32 => 5,
            Bytes(_) | Text | Message(_) => 2,
        };
        self.varint(u64::from(number << 3 | wire_type), out);
        match kind {
            Varint => {
                let value = [0, 1, 2, 99, u64::MAX, 1 << 40][self.pick(6)];
                self.varint(value, out);
            }
            Fixed64 => out.extend([self.pick(256) as u8; 8]),
            Fixed32 => out.extend([self.pick(256) as u8; 4]),
            Bytes(len) => {
                let body = vec![self.pick(256) as u8; len];
                self.body(&body, out);
            }
            Text => {
                let text = ["", "a", "\u{1F980}", "key", &"x".repeat(150)][self.pick(5)].to_owned();
                self.body(text.as_bytes(), out);
            }
            Message(schema) => {
                let body = self.message(schema);
                self.body(&body, out);
            }
        }
    }

    fn unknown(&mut self, out: &mut Vec<u8>) {
        let number = [17, 30, 1000, (1 << 29) - 1][self.pick(4)];
        match self.pick(5) {
            0 => self.field(number, Varint, out),
            1 => self.field(number, Fixed64, out),
            2 => self.field(number, Fixed32, out),
            3 => self.field(number, Text, out),
            _ => {
                self.varint(u64::from(number << 3 | 3), out);
                if self.pick(2) == 0 {
                    self.unknown(out);
                }
                self.varint(u64::from(number << 3 | 4), out);
            }
        }
    }

    fn body(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.varint(body.len() as u64, out);
        out.extend(body);
    }

    /// A varint, now and then a byte longer than need be.
    fn varint(&mut self, mut value: u64, out: &mut Vec<u8>) {
        let padded = value < 1 << 56 && self.pick(16) == 1;
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        if padded {
            out.extend([value as u8 | 0x80, 0]);
        } else {
            out.push(value as u8);
        }
    }
}
