//! Messages of DNS (RFC 1035 4.1): reading questions, writing answers, and telling whether an answer is one to a question.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::meaning::Verdict;

/// How long clients may keep a service's virtual address, in seconds: as long as Kubernetes' DNS says of its services. That a
/// name is unknown is not to be kept, for there is no SOA with it (RFC 2308 5): it may be applied at any moment.
const TTL: u32 = 5;
/// How large an answer we take over UDP, which is as much as passes everywhere unfragmented.
/// <https://dnsflagday.net/2020/>
const UDP_PAYLOAD: u16 = 1232;
/// Of a message's header.
const HEADER: usize = 12;

/// A message that asks something.
#[derive(Debug)]
pub(super) struct Asked {
    metadata: Metadata,
    /// `None`: not a standard query in class IN, so that it can be no matter of the mesh.
    pub(super) question: Option<Question>,
    /// Where the section of questions ends, as far as it was read.
    end: usize,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Question {
    query: Query,
    /// In lower case, with no dot at its end.
    pub(super) name: String,
    /// Which record.
    pub(super) record_type: RecordType,
}

/// A message that cannot be understood.
#[derive(Debug)]
pub(super) struct Malformed {
    /// What to say to that. `None`: nothing, for it may be an answer itself, and answers to answers never end.
    pub(super) answer: Option<Vec<u8>>,
}

impl Asked {
    /// Reads as much of a message as says what is asked.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| Malformed { answer: None })?;
        let metadata = header.metadata;
        if metadata.message_type == MessageType::Response {
            return Err(Malformed { answer: None });
        }
        if metadata.op_code != OpCode::Query {
            return Ok(Self { metadata, question: None, end: HEADER });
        }
        let malformed = || Malformed { answer: error(&metadata, None, ResponseCode::FormErr) };
        // More than one is not to be asked (RFC 9619).
        if header.counts.queries != 1 {
            return Err(malformed());
        }
        let query = Query::read(&mut decoder).map_err(|_| malformed())?;
        let question = (query.query_class() == DNSClass::IN).then(|| {
            let name = query.name().to_lowercase().to_ascii();
            let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
            Question { record_type: query.query_type(), name, query }
        });
        Ok(Self { metadata, question, end: decoder.index() })
    }

    /// Says that it cannot be answered now.
    pub(super) fn unavailable(&self) -> Option<Vec<u8>> {
        error(&self.metadata, self.question.as_ref(), ResponseCode::ServFail)
    }

    /// Whether `answer` is one to this message, sent with another `id`. Some servers say no more of a message that they refuse
    /// than that.
    pub(super) fn is_answered_by(&self, sent: &[u8], answer: &[u8]) -> bool {
        let mut decoder = BinDecoder::new(answer);
        let Ok(header) = Header::read(&mut decoder) else { return false };
        let questions = HEADER..self.end;
        header.metadata.message_type == MessageType::Response
            && sent.starts_with(&header.metadata.id.to_be_bytes())
            && header.metadata.op_code == self.metadata.op_code
            && match header.counts.queries {
                0 if self.end > HEADER => header.metadata.response_code != ResponseCode::NoError,
                // The case may have been changed on the way. Lengths of labels are below the letters.
                _ => matches!(
                    (sent.get(questions.clone()), answer.get(questions)),
                    (Some(ours), Some(theirs)) if ours.eq_ignore_ascii_case(theirs)
                ),
            }
    }
}

impl Question {
    /// The mesh's answer to it, which is never larger than what any client takes over UDP.
    pub(super) fn answer(&self, bytes: &[u8], verdict: Verdict) -> Result<Vec<u8>, Malformed> {
        let asked = match Message::from_vec(bytes) {
            Ok(asked) => asked,
            Err(_) => {
                let answer = Asked::read(bytes)
                    .ok()
                    .and_then(|asked| error(&asked.metadata, Some(self), ResponseCode::FormErr));
                return Err(Malformed { answer });
            }
        };
        let code = match verdict {
            Verdict::Address(_) | Verdict::NoRecord => ResponseCode::NoError,
            Verdict::NoSuchName => ResponseCode::NXDomain,
            Verdict::Unavailable | Verdict::Forward => ResponseCode::ServFail,
        };
        let mut message = respond(&asked.metadata, Some(self), code);
        message.metadata.authoritative = code != ResponseCode::ServFail;
        if let Some(edns) = &asked.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(UDP_PAYLOAD).set_version(0);
            message.set_edns(ours);
            // We know version 0 only (RFC 6891 6.1.3).
            if edns.version() > 0 {
                message.metadata.response_code = ResponseCode::BADVERS;
            }
        }
        if let Verdict::Address(address) = verdict
            && message.metadata.response_code == ResponseCode::NoError
        {
            let data = match address {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            message.add_answer(Record::from_rdata(self.query.name().clone(), TTL, data));
        }
        to_bytes(&message).ok_or(Malformed { answer: None })
    }
}

fn respond(asked: &Metadata, question: Option<&Question>, code: ResponseCode) -> Message {
    let mut message = Message::response(asked.id, asked.op_code);
    message.metadata = Metadata::response_from_request(asked);
    // We forward, so it is for those who ask us.
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(question.map(|question| question.query.clone()));
    message
}

fn error(asked: &Metadata, question: Option<&Question>, code: ResponseCode) -> Option<Vec<u8>> {
    to_bytes(&respond(asked, question, code))
}

fn to_bytes(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().inspect_err(|error| tracing::debug!(%error, "an answer cannot be written")).ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, record_type: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), record_type));
        message
    }

    fn bytes(message: &Message) -> Vec<u8> {
        message.to_vec().expect("it can be written")
    }

    fn answer(message: &Message, verdict: Verdict) -> Message {
        let bytes = bytes(message);
        let asked = Asked::read(&bytes).expect("a question");
        let answer = asked.question.expect("of the mesh").answer(&bytes, verdict).expect("an answer");
        assert!(answer.len() <= 512, "fits without EDNS");
        Message::from_vec(&answer).expect("well-formed")
    }

    #[test]
    fn an_answer_has_the_name_as_it_was_asked() {
        let asked = question("PayMents.shop.MESH.", RecordType::A);
        let address = IpAddr::from([240, 240, 0, 7]);
        let answer = answer(&asked, Verdict::Address(address));
        assert_eq!((answer.id, answer.message_type), (7, MessageType::Response));
        assert!(answer.authoritative && answer.recursion_desired && answer.recursion_available);
        assert_eq!(answer.queries, asked.queries);
        let record = &answer.answers[0];
        assert!(record.name.eq_case(asked.queries[0].name()), "{}", record.name);
        assert_eq!((record.ttl, record.data.ip_addr()), (TTL, Some(address)));
        assert!(answer.edns.is_none(), "not asked with EDNS");
    }

    #[test]
    fn every_verdict_has_its_code() {
        let asked = question("a.b.mesh.", RecordType::AAAA);
        for (verdict, code) in [
            (Verdict::NoRecord, ResponseCode::NoError),
            (Verdict::NoSuchName, ResponseCode::NXDomain),
            (Verdict::Unavailable, ResponseCode::ServFail),
        ] {
            let answer = answer(&asked, verdict);
            assert_eq!((answer.response_code, answer.answers.len()), (code, 0), "{verdict:?}");
        }
    }

    #[test]
    fn the_longest_name_still_fits() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}.mesh.", "a".repeat(56));
        let mut asked = question(&longest, RecordType::AAAA);
        asked.set_edns(Edns::new());
        answer(&asked, Verdict::Address(std::net::Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn edns_is_answered_with_edns_of_our_version() {
        let mut asked = question("a.b.mesh.", RecordType::A);
        asked.set_edns(Edns::new());
        let plain = answer(&asked, Verdict::NoRecord);
        assert_eq!(plain.edns.expect("EDNS").max_payload(), UDP_PAYLOAD);
        asked.edns.as_mut().expect("set").set_version(1);
        let newer = answer(&asked, Verdict::Address([240, 240, 0, 7].into()));
        // 16 means BADSIG, too, where there is a signature.
        assert_eq!((u16::from(newer.response_code), newer.answers.len()), (16, 0));
    }

    #[test]
    fn what_is_no_question() {
        let one = bytes(&question("a.b.", RecordType::A));
        let mut answer = one.clone();
        answer[2] |= 0x80;
        let mut none = one.clone();
        none[5] = 0;
        let mut two = one.clone();
        two[5] = 2;
        let mut looping = one.clone();
        looping[12..14].copy_from_slice(&[0xc0, 12]);
        // What has no header, or is an answer, gets none.
        for (bytes, code) in [
            (&one[..11], None),
            (&answer, None),
            (&none, Some(ResponseCode::FormErr)),
            (&two, Some(ResponseCode::FormErr)),
            (&looping, Some(ResponseCode::FormErr)),
            (&one[..14], Some(ResponseCode::FormErr)),
        ] {
            let malformed = Asked::read(bytes).expect_err("malformed");
            let said = malformed.answer.map(|answer| {
                let answer = Message::from_vec(&answer).expect("well-formed");
                assert_eq!((answer.id, answer.message_type), (7, MessageType::Response));
                answer.response_code
            });
            assert_eq!(said, code, "{bytes:?}");
        }
    }

    #[test]
    fn other_classes_and_operations_are_not_the_meshs() {
        let mut chaos = question("version.bind.", RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        let mut update = question("a.b.mesh.", RecordType::SOA);
        update.metadata.op_code = OpCode::Update;
        for message in [chaos, update] {
            assert!(Asked::read(&bytes(&message)).expect("it can be passed on").question.is_none());
        }
    }

    #[test]
    fn answers_to_something_else() {
        let sent = bytes(&question("a.b.", RecordType::A));
        let asked = Asked::read(&sent).expect("a question");
        let mut good = sent.clone();
        good[2] |= 0x80;
        assert!(asked.is_answered_by(&sent, &good));
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed
        };
        assert!(asked.is_answered_by(&sent, &changed(|b| b[13] = b'A')), "another case");
        // A refusal without the question.
        let bare = [&good[..3], &[1], &[0; 8]].concat();
        assert!(asked.is_answered_by(&sent, &bare));
        for (what, other) in [
            ("another ID", changed(|b| b[1] ^= 1)),
            ("no answer", sent.clone()),
            ("another operation", changed(|b| b[2] |= 0x28)),
            ("another name", changed(|b| b[13] = b'x')),
            ("another record", changed(|b| b[18] = 28)),
            ("half of it", good[..14].to_vec()),
            ("a good answer to nothing", [&good[..4], &[0; 8]].concat()),
        ] {
            assert!(!asked.is_answered_by(&sent, &other), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..600), other in proptest::collection::vec(any::<u8>(), 0..100)) {
            no_harm(&bytes, &other);
        }

        #[test]
        fn no_damaged_message_is_too_much(
            at in proptest::collection::vec((0usize..64, any::<u8>()), 0..6),
            length in 0usize..64,
        ) {
            let mut message = question("pay.shop.mesh.", RecordType::A);
            message.set_edns(Edns::new());
            let mut bytes = bytes(&message);
            let whole = bytes.clone();
            for (at, byte) in at {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(length);
            no_harm(&bytes, &whole);
        }
    }

    /// Whatever is read, what is written can be read, and is an answer with the same ID.
    fn no_harm(bytes: &[u8], other: &[u8]) {
        let written = match Asked::read(bytes) {
            Err(malformed) => malformed.answer,
            Ok(asked) => {
                asked.is_answered_by(bytes, other);
                match &asked.question {
                    None => asked.unavailable(),
                    Some(question) => {
                        let verdict = Verdict::Address([240, 240, 0, 7].into());
                        question.answer(bytes, verdict).map_or_else(|malformed| malformed.answer, Some)
                    }
                }
            }
        };
        if let Some(written) = written {
            let message = Message::from_vec(&written).expect("well-formed");
            assert_eq!(message.message_type, MessageType::Response);
            assert!(bytes.starts_with(&message.id.to_be_bytes()));
        }
    }
}
