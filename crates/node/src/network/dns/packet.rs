//! DNS messages: what is needed of RFC 1035 to answer for a cluster. Pure.

use std::net::Ipv4Addr;

/// Types of records.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// An alias.
    pub const CNAME: u16 = 5;
    /// The beginning of a zone; says how long "no" holds.
    pub const SOA: u16 = 6;
    /// A name for an address.
    pub const PTR: u16 = 12;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// Host and port of a service.
    pub const SRV: u16 = 33;
    /// Extensions.
    pub const OPT: u16 = 41;
    /// Whatever there is.
    pub const ANY: u16 = 255;
}

/// Outcomes.
pub mod code {
    /// It went well.
    pub const OK: u8 = 0;
    /// The question cannot be read.
    pub const FORMAT: u8 = 1;
    /// The server failed.
    pub const FAILURE: u8 = 2;
    /// There is no such name.
    pub const NO_NAME: u8 = 3;
    /// The server does not do that.
    pub const NOT_IMPLEMENTED: u8 = 4;
}

const HEADER: usize = 12;
/// Most bytes of a name and of a label.
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
/// The bit of an extended question that asks for signatures, where records have their time to live.
const DNSSEC_OK: u32 = 0x8000;
/// Most bytes of a message over UDP without extensions.
const PLAIN_UDP: usize = 512;
/// Most bytes we send over UDP, whatever a client says it takes.
const MOST_UDP: usize = 4096;
const IN: u16 = 1;
/// Most pointers followed in one name.
const MOST_POINTERS: usize = 16;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The client's number.
    pub id: u16,
    /// Lower-case, without the last dot.
    pub name: String,
    /// Type of record.
    pub kind: u16,
    /// Most bytes the client takes over UDP.
    pub udp_limit: usize,
    /// Whether the client speaks extensions.
    pub extended: bool,
    /// Whether it asks for signatures.
    pub secured: bool,
    /// Whether it wants others to be asked.
    recursion: bool,
    /// The question as it came, case included, to be sent back.
    raw: Vec<u8>,
}

/// Why a message is no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not even a header: there is nothing to answer.
    Hopeless,
    /// It has a number to be answered with, and a code that says what is wrong.
    Refused(u16, u8),
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose; empty stands for the name asked for.
    pub name: String,
    /// How long it holds, seconds.
    pub ttl: u32,
    /// What it says.
    pub data: RecordData,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// An address.
    A(Ipv4Addr),
    /// Another name.
    Cname(String),
    /// A name for an address.
    Ptr(String),
    /// Host and port.
    Srv {
        /// The port.
        port: u16,
        /// The host.
        target: String,
    },
    /// The zone, for how long a "no" holds.
    Soa {
        /// The zone.
        zone: String,
        /// Seconds.
        minimum: u32,
    },
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Outcome, see [`code`].
    pub code: u8,
    /// Answers.
    pub answers: Vec<Record>,
    /// The zone, when there is no answer.
    pub authority: Vec<Record>,
    /// Addresses of hosts in the answers.
    pub additional: Vec<Record>,
}

impl Query {
    /// Reads a question.
    ///
    /// # Errors
    /// When it is none that can be answered.
    pub fn parse(message: &[u8]) -> Result<Query, Malformed> {
        let id = be16(message, 0).ok_or(Malformed::Hopeless)?;
        let flags = be16(message, 2).ok_or(Malformed::Hopeless)?;
        if flags & 0x8000 != 0 {
            return Err(Malformed::Hopeless);
        }
        let bad = Malformed::Refused(id, code::FORMAT);
        if flags & 0x7800 != 0 {
            return Err(Malformed::Refused(id, code::NOT_IMPLEMENTED));
        }
        if be16(message, 4) != Some(1) {
            return Err(bad);
        }
        let (name, after) = read_plain_name(message, HEADER).ok_or(bad)?;
        let kind = be16(message, after).ok_or(bad)?;
        let class = be16(message, after + 2).ok_or(bad)?;
        if class != IN {
            return Err(Malformed::Refused(id, code::NOT_IMPLEMENTED));
        }
        let (mut udp_limit, mut extended, mut secured) = (PLAIN_UDP, false, false);
        let mut at = after + 4;
        let others = [6, 8, 10].iter().map(|offset| usize::from(be16(message, *offset).unwrap_or(0))).sum::<usize>();
        for _ in 0..others {
            let Some(record) = read_record(message, at) else { break };
            if record.kind == kind::OPT {
                extended = true;
                secured = record.ttl & DNSSEC_OK != 0;
                udp_limit = usize::from(record.class).clamp(PLAIN_UDP, MOST_UDP);
            }
            at = record.end;
        }
        let raw = message[HEADER..after + 4].to_vec();
        Ok(Query { id, name, kind, udp_limit, extended, secured, recursion: flags & 0x0100 != 0, raw })
    }

    /// A question of our own; `None` when it is no name that can be asked for.
    pub fn of(name: &str, kind: u16) -> Option<Query> {
        let labels = name.split('.').map(str::len);
        if name.len() > LONGEST_NAME - 2 || labels.clone().any(|length| !(1..=LONGEST_LABEL).contains(&length)) {
            return None;
        }
        let mut raw = Vec::with_capacity(name.len() + 6);
        write_name(&mut raw, name);
        raw.extend_from_slice(&kind.to_be_bytes());
        raw.extend_from_slice(&IN.to_be_bytes());
        let (name, udp_limit) = (name.to_ascii_lowercase(), MOST_UDP);
        Some(Query { id: 0, name, kind, udp_limit, extended: false, secured: false, recursion: true, raw })
    }

    /// The question as it goes to a resolver: nothing of the client's message but what it asks for.
    pub fn to_resolver(&self, id: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.raw.len() + 11);
        for field in [id, 0x0100, 1, 0, 0, u16::from(self.extended)] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(&self.raw);
        if self.extended {
            out.extend_from_slice(&[0, 0, 41]);
            out.extend_from_slice(&u16::try_from(self.udp_limit).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(&if self.secured { DNSSEC_OK } else { 0 }.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        out
    }

    /// Whether a message answers this question as it was `asked`: by its number, its kind and its words.
    pub fn is_answered_by(&self, asked: &[u8], message: &[u8]) -> bool {
        let is_answer = be16(message, 2).is_some_and(|flags| flags & 0xf800 == 0x8000);
        let words = message.get(HEADER..HEADER + self.raw.len());
        is_answer
            && message.get(..2) == asked.get(..2)
            && be16(message, 4) == Some(1)
            && words.is_some_and(|words| words.eq_ignore_ascii_case(&self.raw))
    }

    /// Somebody else's answer to the same question, with this client's number and words; `None` when it is none. Over
    /// UDP see [`Query::cut`].
    pub fn adopt(&self, mut answer: Vec<u8>) -> Option<Vec<u8>> {
        answer.get_mut(..2)?.copy_from_slice(&self.id.to_be_bytes());
        answer.get_mut(HEADER..HEADER + self.raw.len())?.copy_from_slice(&self.raw);
        Some(answer)
    }

    /// An answer as this client takes it over UDP: one that is too long tells it to ask over TCP.
    pub fn cut(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= self.udp_limit {
            return answer;
        }
        let mut out = self.answer(&Answer::default(), self.udp_limit);
        out[2] |= 0x02;
        out
    }

    /// Writes the answer, at most `limit` bytes; what does not fit is left out and the client told so.
    pub fn answer(&self, answer: &Answer, limit: usize) -> Vec<u8> {
        let mut flags = 0x8000 | 0x0400 | 0x0080 | u16::from(answer.code);
        if self.recursion {
            flags |= 0x0100;
        }
        let mut out = Vec::with_capacity(PLAIN_UDP);
        for field in [self.id, flags, 1, 0, 0, 0] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(&self.raw);
        let room = limit.saturating_sub(if self.extended { 11 } else { 0 });
        let mut truncated = false;
        for (section, records) in [(6, &answer.answers), (8, &answer.authority), (10, &answer.additional)] {
            let mut count = 0u16;
            for record in records {
                let before = out.len();
                write_record(&mut out, record);
                if out.len() > room {
                    out.truncate(before);
                    // What stands beside the answer may be missing without harm.
                    truncated |= section == 6;
                    break;
                }
                count += 1;
            }
            out[section..section + 2].copy_from_slice(&count.to_be_bytes());
        }
        if self.extended {
            out.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
            let count = be16(&out, 10).unwrap_or(0) + 1;
            out[10..12].copy_from_slice(&count.to_be_bytes());
        }
        if truncated {
            out[2] |= 0x02;
        }
        out
    }
}

/// An answer that says nothing but `code`, to a question that could not be read.
pub fn refusal(id: u16, code: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    for field in [id, 0x8080 | u16::from(code), 0, 0, 0, 0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out
}

/// What a cache needs to know of somebody else's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Outcome.
    pub code: u8,
    /// Whether parts are missing.
    pub truncated: bool,
    /// How long the shortest-lived record holds, seconds; `None` without records.
    pub ttl: Option<u32>,
    /// Where times to live stand.
    pub ttl_offsets: Vec<usize>,
}

/// Reads the shape of an answer; `None` when it is none.
pub fn shape(message: &[u8]) -> Option<Shape> {
    let flags = be16(message, 2)?;
    let mut at = HEADER;
    for _ in 0..be16(message, 4)? {
        at = read_name(message, at)?.1 + 4;
    }
    let (mut ttl, mut ttl_offsets) = (None, Vec::new());
    let count = [6, 8, 10].iter().map(|offset| usize::from(be16(message, *offset).unwrap_or(0))).sum::<usize>();
    for _ in 0..count {
        let record = read_record(message, at)?;
        if record.kind != kind::OPT {
            ttl = Some(ttl.map_or(record.ttl, |known: u32| known.min(record.ttl)));
            ttl_offsets.push(record.ttl_at);
        }
        at = record.end;
    }
    let code = u8::try_from(flags & 0x000f).ok()?;
    Some(Shape { code, truncated: flags & 0x0200 != 0, ttl, ttl_offsets })
}

/// The addresses that an answer holds.
pub fn addresses(message: &[u8]) -> Vec<Ipv4Addr> {
    let read = || {
        let mut at = HEADER;
        for _ in 0..be16(message, 4)? {
            at = read_name(message, at)?.1 + 4;
        }
        let mut list = Vec::new();
        for _ in 0..be16(message, 6)? {
            let record = read_record(message, at)?;
            let data = message.get(record.end.checked_sub(4)?..record.end)?;
            if record.kind == kind::A && record.class == IN && record.end - record.ttl_at == 10 {
                list.push(Ipv4Addr::new(data[0], data[1], data[2], data[3]));
            }
            at = record.end;
        }
        Some(list)
    };
    read().unwrap_or_default()
}

struct RawRecord {
    kind: u16,
    class: u16,
    ttl: u32,
    ttl_at: usize,
    end: usize,
}

fn read_record(message: &[u8], at: usize) -> Option<RawRecord> {
    let (_, after) = read_name(message, at)?;
    let ttl = u32::from(be16(message, after + 4)?) << 16 | u32::from(be16(message, after + 6)?);
    let length = usize::from(be16(message, after + 8)?);
    let end = after + 10 + length;
    (end <= message.len()).then_some(RawRecord {
        kind: be16(message, after)?,
        class: be16(message, after + 2)?,
        ttl,
        ttl_at: after + 4,
        end,
    })
}

/// Reads a name that stands there in full, as that of a question does.
fn read_plain_name(message: &[u8], at: usize) -> Option<(String, usize)> {
    let (name, end, pointers) = read_any_name(message, at)?;
    (pointers == 0).then_some((name, end))
}

/// Reads a name; returns it in lower case without its last dot, and where it ends.
fn read_name(message: &[u8], at: usize) -> Option<(String, usize)> {
    read_any_name(message, at).map(|(name, end, _)| (name, end))
}

/// The same, with the number of pointers in it. Labels are bytes: what is no plain letter, digit or sign is written
/// `\ddd`, so that two names never read the same.
fn read_any_name(message: &[u8], mut at: usize) -> Option<(String, usize, usize)> {
    let mut name = String::new();
    let mut end = None;
    let (mut pointers, mut bytes) = (0, 1);
    loop {
        let length = *message.get(at)?;
        match length & 0xc0 {
            0xc0 => {
                pointers += 1;
                if pointers > MOST_POINTERS {
                    return None;
                }
                end.get_or_insert(at + 2);
                at = usize::from(be16(message, at)? & 0x3fff);
            }
            0 if length == 0 => return Some((name, end.unwrap_or(at + 1), pointers)),
            0 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                bytes += 1 + label.len();
                if bytes > LONGEST_NAME {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                for byte in label {
                    match byte {
                        b'.' | b'\\' | 0..=0x20 | 0x7f.. => name.push_str(&format!("\\{byte:03}")),
                        byte => name.push(char::from(byte.to_ascii_lowercase())),
                    }
                }
                at += 1 + usize::from(length);
            }
            _ => return None,
        }
    }
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let bytes = &label.as_bytes()[..label.len().min(LONGEST_LABEL)];
        out.push(u8::try_from(bytes.len()).unwrap_or(63));
        out.extend_from_slice(bytes);
    }
    out.push(0);
}

fn write_record(out: &mut Vec<u8>, record: &Record) {
    if record.name.is_empty() {
        out.extend_from_slice(&[0xc0, 0x0c]);
    } else {
        write_name(out, &record.name);
    }
    let kind = match &record.data {
        RecordData::A(_) => kind::A,
        RecordData::Cname(_) => kind::CNAME,
        RecordData::Ptr(_) => kind::PTR,
        RecordData::Srv { .. } => kind::SRV,
        RecordData::Soa { .. } => kind::SOA,
    };
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    out.extend_from_slice(&record.ttl.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    match &record.data {
        RecordData::A(address) => out.extend_from_slice(&address.octets()),
        RecordData::Cname(name) | RecordData::Ptr(name) => write_name(out, name),
        RecordData::Srv { port, target } => {
            out.extend_from_slice(&[0, 0, 0, 100]);
            out.extend_from_slice(&port.to_be_bytes());
            write_name(out, target);
        }
        RecordData::Soa { zone, minimum } => {
            write_name(out, &format!("ns.dns.{zone}"));
            write_name(out, &format!("hostmaster.{zone}"));
            for number in [1, 7200, 1800, 86400, *minimum] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
    let length = u16::try_from(out.len() - length_at - 2).unwrap_or(u16::MAX);
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

fn be16(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

/// A question as a client would write it.
#[cfg(test)]
pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [id, 0x0100, 1, 0, 0, 0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    write_name(&mut out, name);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(last: u8) -> Record {
        Record { name: String::new(), ttl: 5, data: RecordData::A(Ipv4Addr::new(10, 0, 0, last)) }
    }

    #[test]
    fn questions_are_read_and_answered_in_their_own_words() {
        let message = question(7, "Hello.NS.svc", kind::A);
        let query = Query::parse(&message).expect("a question");
        assert_eq!((query.id, query.name.as_str(), query.kind), (7, "hello.ns.svc", kind::A));
        let answer = query.answer(&Answer { answers: vec![record(1)], ..Answer::default() }, query.udp_limit);
        assert_eq!(answer[..12], [0, 7, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..message.len()], message[12..]);
        assert_eq!(answer[message.len()..], [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1]);
        let shape = shape(&answer).expect("an answer");
        assert_eq!((shape.code, shape.ttl, shape.truncated), (0, Some(5), false));
        assert_eq!(shape.ttl_offsets, [message.len() + 6]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let query = Query::parse(&question(1, "a.b", kind::A)).expect("a question");
        let many = Answer { answers: (0..60).map(record).collect(), ..Answer::default() };
        let answer = query.answer(&many, query.udp_limit);
        assert!(answer.len() <= 512 && shape(&answer).expect("an answer").truncated);
        assert!(!shape(&query.answer(&many, 65535)).expect("an answer").truncated);
    }

    #[test]
    fn extensions_raise_the_limit() {
        let mut message = question(1, "a.b", kind::A);
        message[11] = 1;
        message.extend_from_slice(&[0, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0]);
        let query = Query::parse(&message).expect("a question");
        assert_eq!((query.udp_limit, query.extended), (4096, true));
        let answer = query.answer(&Answer::default(), query.udp_limit);
        assert_eq!(be16(&answer, 10), Some(1));
    }

    #[test]
    fn nonsense_is_refused_without_panic() {
        let good = question(9, "a.b", kind::A);
        assert_eq!(Query::parse(&good[..1]), Err(Malformed::Hopeless));
        for end in 4..good.len() {
            assert_eq!(Query::parse(&good[..end]), Err(Malformed::Refused(9, code::FORMAT)), "{end}");
        }
        let mut looped = good.clone();
        looped[12..14].copy_from_slice(&[0xc0, 12]);
        assert_eq!(Query::parse(&looped), Err(Malformed::Refused(9, code::FORMAT)));
        let mut notify = good;
        notify[2] |= 0x20;
        assert_eq!(Query::parse(&notify), Err(Malformed::Refused(9, code::NOT_IMPLEMENTED)));
        assert_eq!(shape(&[0; 5]), None);
    }

    #[test]
    fn names_that_differ_never_read_the_same() {
        let with_label = |label: &[u8]| {
            let mut message = question(1, "", kind::A);
            message.truncate(HEADER);
            message.push(u8::try_from(label.len()).expect("short"));
            message.extend_from_slice(label);
            message.extend_from_slice(&[4, b't', b'e', b's', b't', 0, 0, 1, 0, 1]);
            Query::parse(&message).expect("a question").name
        };
        assert_eq!(with_label(b"www"), "www.test");
        assert_eq!(with_label(b"a.b"), "a\\046b.test");
        assert_eq!(with_label(b"a\\046b"), "a\\092046b.test");
        assert_eq!(with_label(b"\xff x"), "\\255\\032x.test");
    }

    #[test]
    fn only_what_was_asked_goes_to_a_resolver() {
        let mut message = question(7, "A.test", kind::A);
        message[11] = 1;
        // A cookie among the extensions, and the wish for signatures.
        message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 6, 0, 10, 0, 2, 1, 2]);
        let query = Query::parse(&message).expect("a question");
        assert!(query.secured && query.udp_limit == 1232);
        let sent = query.to_resolver(0x0a0b);
        assert_eq!(sent[..2], [0x0a, 0x0b]);
        assert_eq!(sent[sent.len() - 11..], [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
        let back = Query::parse(&sent).expect("a question");
        assert_eq!((back.name.as_str(), back.kind, back.secured), ("a.test", kind::A, true));
    }

    #[test]
    fn what_is_too_long_for_udp_sends_the_client_to_tcp() {
        let query = Query::parse(&question(1, "a.b", kind::A)).expect("a question");
        let many = Answer { answers: (0..60).map(record).collect(), ..Answer::default() };
        let long = query.answer(&many, 65535);
        let cut = query.cut(long.clone());
        assert!(cut.len() <= 512 && shape(&cut).expect("an answer").truncated);
        assert_eq!(addresses(&long).len(), 60);
        assert!(addresses(&cut).is_empty());
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_not() {
        assert_eq!(Query::of("a.test", kind::A).expect("a name").to_resolver(1), question(1, "a.test", kind::A));
        for bad in [format!("{}.test", "a".repeat(64)), "a..test".into(), String::new(), vec!["a"; 200].join(".")] {
            assert_eq!(Query::of(&bad, kind::A), None, "{bad}");
        }
    }

    #[test]
    fn no_message_makes_the_reader_panic() {
        let mut good = question(9, "a.b", kind::A);
        good[11] = 1;
        good.extend_from_slice(&[0xc0, 12, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0]);
        // A small generator (xorshift): the same messages each time.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..50_000 {
            let mut message = good.clone();
            for _ in 0..1 + next() % 4 {
                let at = usize::try_from(next() % good.len() as u64).expect("small");
                message[at] = next().to_le_bytes()[0];
            }
            message.truncate(usize::try_from(next() % (good.len() as u64 + 1)).expect("small"));
            if let Ok(query) = Query::parse(&message) {
                assert!(shape(&query.answer(&Answer::default(), 512)).is_some());
                assert!(Query::parse(&query.to_resolver(1)).is_ok_and(|back| back.name == query.name));
            }
            drop((shape(&message), addresses(&message)));
        }
    }

    #[test]
    fn services_and_zones_are_written() {
        let query = Query::parse(&question(1, "_h._tcp.s", kind::SRV)).expect("a question");
        let srv = Record { name: String::new(), ttl: 1, data: RecordData::Srv { port: 80, target: "s.x".into() } };
        let soa = Record { name: "z".into(), ttl: 1, data: RecordData::Soa { zone: "z".into(), minimum: 5 } };
        let answer = Answer { answers: vec![srv], authority: vec![soa], ..Answer::default() };
        let bytes = query.answer(&answer, 512);
        assert!(bytes.windows(13).any(|w| w == [0, 11, 0, 0, 0, 100, 0, 80, 1, b's', 1, b'x', 0]), "{bytes:?}");
        assert_eq!(shape(&bytes).expect("an answer").ttl_offsets.len(), 2);
    }
}
