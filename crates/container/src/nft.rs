//! The part of nf_tables' netlink language that [`crate::network`] speaks: tables, chains, rules, sets and maps,
//! changed in one transaction.

use std::io;
use std::net::Ipv4Addr;

use crate::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, Socket, attribute, nested};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY: u8 = 2;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

/// Elements in one message; a nested attribute holds at most 64 KiB.
const ELEMENTS: usize = 256;

/// The first of the 32-bit registers; they lie side by side.
pub(crate) const REG: u32 = 8;
const REG_VERDICT: u32 = 0;

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

pub(crate) const FILTER_PREROUTING: Hook = Hook { kind: "filter", number: 0, priority: -150 };
pub(crate) const PREROUTING: Hook = Hook { kind: "nat", number: 0, priority: -100 };
pub(crate) const OUTPUT: Hook = Hook { kind: "nat", number: 3, priority: -100 };
pub(crate) const POSTROUTING: Hook = Hook { kind: "nat", number: 4, priority: 100 };
pub(crate) const FILTER_FORWARD: Hook = Hook { kind: "filter", number: 2, priority: 0 };
pub(crate) const FILTER_OUTPUT: Hook = Hook { kind: "filter", number: 3, priority: 0 };

/// What a map's values are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values {
    /// It is a set.
    None,
    /// Data of a type and length.
    Data(u32, u32),
    /// Chains to go to.
    Verdicts,
}

/// Types as the `nft` program names them, so that it can print our tables.
pub(crate) const TYPE_ADDRESS_PAIR: u32 = 7 << 6 | 7;
pub(crate) const TYPE_ADDRESS_PORT: u32 = 7 << 6 | 13;
pub(crate) const TYPE_SERVICE: u32 = 7 << 12 | 12 << 6 | 13;
pub(crate) const TYPE_INTEGER: u32 = 4;

/// An expression of a rule, encoded.
pub(crate) struct Expr(Vec<u8>);

fn be(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

impl Expr {
    fn new(name: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Expr {
        let mut bytes = Vec::new();
        nested(&mut bytes, LIST_ELEM, |expr| {
            text(expr, 1, name);
            nested(expr, 2, fill);
        });
        Expr(bytes)
    }

    /// Loads a header field: of the network header or, with `transport`, of the one after it.
    pub(crate) fn load(transport: bool, offset: u32, length: u32, register: u32) -> Expr {
        Expr::new("payload", |data| {
            attribute(data, 1, &be(register));
            attribute(data, 2, &be(if transport { 2 } else { 1 }));
            attribute(data, 3, &be(offset));
            attribute(data, 4, &be(length));
        })
    }

    /// Loads the destination address.
    pub(crate) fn destination(register: u32) -> Expr {
        Expr::load(false, 16, 4, register)
    }

    /// Loads the source address.
    pub(crate) fn source(register: u32) -> Expr {
        Expr::load(false, 12, 4, register)
    }

    /// Loads the transport protocol.
    pub(crate) fn protocol(register: u32) -> Expr {
        Expr::new("meta", |data| {
            attribute(data, 1, &be(register));
            attribute(data, 2, &be(16));
        })
    }

    /// Loads the name of the interface a packet came by: sixteen bytes, from `register` on.
    pub(crate) fn arrival(register: u32) -> Expr {
        Expr::new("meta", |data| {
            attribute(data, 1, &be(register));
            attribute(data, 2, &be(6));
        })
    }

    /// Looks up by which interface the source address is reached, of the one the packet came by alone: 0 when it is
    /// not.
    pub(crate) fn way_back(register: u32) -> Expr {
        Expr::new("fib", |data| {
            attribute(data, 1, &be(register));
            // The interface's number; by source address and arrival.
            attribute(data, 2, &be(1));
            attribute(data, 3, &be(1 | 8));
        })
    }

    /// Goes on only when a register is (or is not) a value.
    pub(crate) fn compare(register: u32, equal: bool, value: &[u8]) -> Expr {
        Expr::new("cmp", |data| {
            attribute(data, 1, &be(register));
            attribute(data, 2, &be(u32::from(!equal)));
            nested(data, 3, |inner| attribute(inner, DATA_VALUE, value));
        })
    }

    /// Keeps the first bits of an address.
    pub(crate) fn mask(register: u32, prefix: u8) -> Expr {
        Expr::new("bitwise", |data| {
            attribute(data, 1, &be(register));
            attribute(data, 2, &be(register));
            attribute(data, 3, &be(4));
            nested(data, 4, |inner| attribute(inner, DATA_VALUE, &netmask(prefix).octets()));
            nested(data, 5, |inner| attribute(inner, DATA_VALUE, &[0; 4]));
        })
    }

    /// Looks a register up in a map and loads the value; goes on only when there is one.
    pub(crate) fn lookup(map: &str, key: u32, value: u32) -> Expr {
        Expr::new("lookup", |data| {
            text(data, 1, map);
            attribute(data, 2, &be(key));
            attribute(data, 3, &be(value));
        })
    }

    /// Looks a register up in a map of chains and goes to the one found.
    pub(crate) fn dispatch(map: &str, key: u32) -> Expr {
        Expr::lookup(map, key, REG_VERDICT)
    }

    /// Goes on only when a register is in a set.
    pub(crate) fn member(set: &str, key: u32) -> Expr {
        Expr::new("lookup", |data| {
            text(data, 1, set);
            attribute(data, 2, &be(key));
        })
    }

    /// A random number below `modulus`.
    pub(crate) fn random(modulus: u32, register: u32) -> Expr {
        Expr::new("numgen", |data| {
            attribute(data, 1, &be(register));
            attribute(data, 2, &be(modulus));
            attribute(data, 3, &be(1));
            attribute(data, 4, &be(0));
        })
    }

    /// A number below `modulus` that depends on four bytes of a register.
    pub(crate) fn hash(from: u32, modulus: u32, register: u32) -> Expr {
        Expr::new("hash", |data| {
            attribute(data, 1, &be(from));
            attribute(data, 2, &be(register));
            attribute(data, 3, &be(4));
            attribute(data, 4, &be(modulus));
            attribute(data, 5, &be(0x6b6e_6f6c));
        })
    }

    /// Rewrites the destination to the address and port in two registers.
    pub(crate) fn redirect(address: u32, port: u32) -> Expr {
        Expr::new("nat", |data| {
            attribute(data, 1, &be(1));
            attribute(data, 2, &be(u32::from(FAMILY)));
            attribute(data, 3, &be(address));
            attribute(data, 5, &be(port));
        })
    }

    /// Loads a value.
    pub(crate) fn value(value: &[u8], register: u32) -> Expr {
        Expr::new("immediate", |data| {
            attribute(data, 1, &be(register));
            nested(data, 2, |inner| attribute(inner, DATA_VALUE, value));
        })
    }

    /// Rewrites the source to the address in a register.
    pub(crate) fn pretend(address: u32) -> Expr {
        Expr::new("nat", |data| {
            attribute(data, 1, &be(0));
            attribute(data, 2, &be(u32::from(FAMILY)));
            attribute(data, 3, &be(address));
        })
    }

    /// Rewrites the source to the address of the interface the packet leaves by.
    pub(crate) fn masquerade() -> Expr {
        Expr::new("masq", |_| {})
    }

    /// Refuses: TCP with a reset, anything else with "port unreachable".
    pub(crate) fn reject(tcp: bool) -> Expr {
        Expr::new("reject", |data| {
            attribute(data, 1, &be(u32::from(tcp)));
            attribute(data, 2, &[if tcp { 0 } else { 3 }]);
        })
    }

    /// Lets the packet through this chain.
    pub(crate) fn accept() -> Expr {
        Expr::judge(ACCEPT)
    }

    /// Drops the packet.
    pub(crate) fn drop() -> Expr {
        Expr::judge(DROP)
    }

    fn judge(code: i32) -> Expr {
        Expr::new("immediate", |data| {
            attribute(data, 1, &be(REG_VERDICT));
            nested(data, 2, |inner| nested(inner, DATA_VERDICT, |inner| attribute(inner, 1, &code.to_be_bytes())));
        })
    }

    /// Calls a chain.
    pub(crate) fn jump(chain: &str) -> Expr {
        Expr::new("immediate", |data| {
            attribute(data, 1, &be(REG_VERDICT));
            nested(data, 2, |inner| verdict(inner, JUMP, chain));
        })
    }
}

fn text(bytes: &mut Vec<u8>, kind: u16, value: &str) {
    let mut with_zero = value.as_bytes().to_vec();
    with_zero.push(0);
    attribute(bytes, kind, &with_zero);
}

fn verdict(bytes: &mut Vec<u8>, code: i32, chain: &str) {
    nested(bytes, DATA_VERDICT, |inner| {
        attribute(inner, 1, &code.to_be_bytes());
        text(inner, 2, chain);
    });
}

/// The mask of a prefix length.
pub(crate) fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

/// An element of a set or map.
pub(crate) struct Element {
    key: Vec<u8>,
    value: Option<Value>,
}

enum Value {
    Data(Vec<u8>),
    Chain(String),
}

impl Element {
    /// An element of a set, or one to delete.
    pub(crate) fn key(key: impl Into<Vec<u8>>) -> Element {
        Element { key: key.into(), value: None }
    }

    /// An element of a map.
    pub(crate) fn data(key: impl Into<Vec<u8>>, data: impl Into<Vec<u8>>) -> Element {
        Element { key: key.into(), value: Some(Value::Data(data.into())) }
    }

    /// An element of a map of chains.
    pub(crate) fn chain(key: impl Into<Vec<u8>>, chain: impl Into<String>) -> Element {
        Element { key: key.into(), value: Some(Value::Chain(chain.into())) }
    }

    fn encode(&self, list: &mut Vec<u8>) {
        nested(list, LIST_ELEM, |element| {
            nested(element, 1, |key| attribute(key, DATA_VALUE, &self.key));
            match &self.value {
                Some(Value::Data(data)) => nested(element, 2, |value| attribute(value, DATA_VALUE, data)),
                Some(Value::Chain(chain)) => nested(element, 2, |value| verdict(value, GOTO, chain)),
                None => {}
            }
        });
    }
}

/// Changes to one table, made all at once or not at all.
pub(crate) struct Batch {
    table: String,
    messages: Vec<Message>,
    sets: u32,
}

impl Batch {
    /// Begins.
    pub(crate) fn new(table: &str) -> Batch {
        Batch { table: table.to_owned(), messages: Vec::new(), sets: 0 }
    }

    /// Whether nothing would change.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages it takes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(Message) -> Message) {
        let message = Message::new(SUBSYSTEM << 8 | kind, flags, &[FAMILY, 0, 0, 0]).text(1, &self.table);
        self.messages.push(fill(message));
    }

    /// Replaces the table by an empty one.
    pub(crate) fn replace_table(&mut self) {
        self.push(NEWTABLE, NLM_F_CREATE, |m| m);
        self.push(DELTABLE, 0, |m| m);
        self.push(NEWTABLE, NLM_F_CREATE, |m| m);
    }

    /// Deletes the table.
    pub(crate) fn delete_table(&mut self) {
        self.push(DELTABLE, 0, |m| m);
    }

    /// Makes a chain; with a hook the kernel calls it.
    pub(crate) fn chain(&mut self, name: &str, hook: Option<Hook>) {
        self.push(NEWCHAIN, NLM_F_CREATE, |message| {
            let message = message.text(3, name);
            let Some(hook) = hook else { return message };
            let message = message.nested(4, |inner| {
                attribute(inner, 1, &be(hook.number));
                attribute(inner, 2, &hook.priority.to_be_bytes());
            });
            message.text(7, hook.kind)
        });
    }

    /// Deletes a chain and its rules.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.push(DELRULE, 0, |message| message.text(2, name));
        self.push(DELCHAIN, 0, |message| message.text(3, name));
    }

    /// Appends a rule to a chain.
    pub(crate) fn rule(&mut self, chain: &str, expressions: &[Expr]) {
        self.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |message| {
            message.text(2, chain).nested(4, |list| expressions.iter().for_each(|expr| list.extend_from_slice(&expr.0)))
        });
    }

    /// Makes a set or a map.
    pub(crate) fn set(&mut self, name: &str, key: (u32, u32), values: Values) {
        const MAP: u32 = 8;
        self.sets += 1;
        let id = self.sets;
        self.push(NEWSET, NLM_F_CREATE, |message| {
            let flags = if matches!(values, Values::None) { 0 } else { MAP };
            let message =
                message.text(2, name).attribute(3, &be(flags)).attribute(4, &be(key.0)).attribute(5, &be(key.1));
            let message = match values {
                Values::None => message,
                Values::Data(kind, length) => message.attribute(6, &be(kind)).attribute(7, &be(length)),
                Values::Verdicts => message.attribute(6, &be(VERDICT_TYPE)).attribute(7, &be(0)),
            };
            message.attribute(10, &be(id))
        });
    }

    /// Deletes a set or a map.
    pub(crate) fn delete_set(&mut self, name: &str) {
        self.push(DELSET, 0, |message| message.text(2, name));
    }

    /// Adds elements.
    pub(crate) fn add(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    /// Removes elements, which must be there.
    pub(crate) fn remove(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS) {
            self.push(kind, flags, |message| {
                message.text(2, set).nested(3, |list| part.iter().for_each(|element| element.encode(list)))
            });
        }
    }

    /// Makes the changes.
    pub(crate) fn commit(self) -> io::Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        // The subsystem's number, big-endian, and no family.
        let header = [0, 0, 0, u8::try_from(SUBSYSTEM).unwrap_or_default()];
        let begin = Message::new(BATCH_BEGIN, crate::netlink::NLM_F_REQUEST, &header);
        let end = Message::new(BATCH_END, crate::netlink::NLM_F_REQUEST, &header);
        Socket::netfilter()?.batch(begin, self.messages, end)
    }
}

/// Whether a table exists.
pub(crate) fn table_exists(table: &str) -> io::Result<bool> {
    let message = Message::new(SUBSYSTEM << 8 | GETTABLE, 0, &[FAMILY, 0, 0, 0]).text(1, table);
    match Socket::netfilter()?.ask(message) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
