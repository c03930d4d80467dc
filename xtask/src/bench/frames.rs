//! Requests that are encoded once and patched for each use: the load generator must cost far
//! less than the servers it measures, since it shares their processors.

/// Requests of the messages' kind: `SEND_MESSAGE_V2`, `SEND_BATCH_MESSAGE`, `PULL_MESSAGE`.
const SEND_MESSAGE_V2: i32 = 310;
const SEND_BATCH_MESSAGE: i32 = 320;
pub(super) const PULL_MESSAGE: i32 = 11;
/// Added to a slot's number, so that each opaque has ten digits.
pub(super) const OPAQUE_BASE: u32 = 1_000_000_000;
/// What is patched: as many digits as stand in the template.
const KEY_DIGITS: usize = 10;
const UNIQUE_DIGITS: usize = 16;
const OFFSET_DIGITS: usize = 15;

/// One request, ready but for its opaque, queue, keys and offset.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: Vec<u8>,
    opaque_at: usize,
    queue_at: usize,
    offset_at: Option<usize>,
    key_at: Vec<usize>,
    unique_at: Vec<usize>,
}

impl Template {
    /// A send of one message with TAGS, KEYS and UNIQ_KEY, as a Java client's.
    pub(super) fn send(topic: &str, body_len: usize) -> Self {
        Self::of_send(
            SEND_MESSAGE_V2,
            topic,
            &properties("\\u0001", "\\u0002"),
            &body(body_len),
        )
    }

    /// A batch of `count` messages, each with TAGS, KEYS and UNIQ_KEY.
    pub(super) fn batch(topic: &str, body_len: usize, count: usize) -> Self {
        let body = body(body_len);
        let properties = properties("\u{1}", "\u{2}");
        let mut batch = Vec::new();
        for _ in 0..count {
            let total_len = 4 + 4 + 4 + 4 + 4 + body.len() + 2 + properties.len();
            batch.extend_from_slice(&u32_of(total_len).to_be_bytes());
            batch.extend_from_slice(&[0; 12]);
            batch.extend_from_slice(&u32_of(body.len()).to_be_bytes());
            batch.extend_from_slice(&body);
            batch.extend_from_slice(&u32_of(properties.len()).to_be_bytes()[2..]);
            batch.extend_from_slice(properties.as_bytes());
        }
        let outer = "UNIQ_KEY\\u0001FD0000000000000000000000000002FF\\u0002WAIT\\u0001true\\u0002";
        Self::of_send(SEND_BATCH_MESSAGE, topic, outer, &batch)
    }

    /// A pull of up to `count` messages that does not wait for new ones.
    pub(super) fn pull(topic: &str, group: &str, count: usize) -> Self {
        let offset = "0".repeat(OFFSET_DIGITS);
        let header = format!(
            concat!(
                r#"{{"code":{code},"extFields":{{"consumerGroup":"{group}","topic":"{topic}","#,
                r#""queueId":"0","queueOffset":"{offset}","maxMsgNums":"{count}","sysFlag":"4","#,
                r#""commitOffset":"0","suspendTimeoutMillis":"15000","subscription":"*","#,
                r#""subVersion":"0","expressionType":"TAG"}},"flag":0,"language":"JAVA","#,
                r#""opaque":{opaque},"serializeTypeCurrentRPC":"JSON","version":479}}"#
            ),
            code = PULL_MESSAGE,
            group = group,
            topic = topic,
            offset = offset,
            count = count,
            opaque = OPAQUE_BASE,
        );
        Self::of_frame(&header, "\"queueId\":\"", &[])
    }

    /// Appends the request to `out`, patched. `sequence` counts the messages of the run.
    pub(super) fn push(&self, out: &mut Vec<u8>, slot: u32, queue: u8, sequence: &mut u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        patch(frame, self.opaque_at, 10, u64::from(OPAQUE_BASE + slot), 10);
        frame[self.queue_at] = b'0' + queue;
        for (key_at, unique_at) in self.key_at.iter().zip(&self.unique_at) {
            patch(frame, *key_at, KEY_DIGITS, *sequence, 10);
            patch(frame, *unique_at, UNIQUE_DIGITS, *sequence, 16);
            *sequence += 1;
        }
    }

    /// As [`Self::push`], for a pull from `offset`.
    pub(super) fn push_pull(&self, out: &mut Vec<u8>, slot: u32, queue: u8, offset: u64) {
        let start = out.len();
        self.push(out, slot, queue, &mut 0);
        if let Some(offset_at) = self.offset_at {
            patch(&mut out[start..], offset_at, OFFSET_DIGITS, offset, 10);
        }
    }

    /// Messages in one request.
    pub(super) fn message_count(&self) -> u64 {
        self.key_at.len() as u64
    }

    fn of_send(code: i32, topic: &str, properties: &str, body: &[u8]) -> Self {
        let header = format!(
            concat!(
                r#"{{"code":{code},"extFields":{{"a":"bench","b":"{topic}","c":"TBW102","d":"4","#,
                r#""e":"0","f":"0","g":"1700000000000","h":"0","i":"{properties}","j":"0","#,
                r#""k":"false","m":"{batch}"}},"flag":0,"language":"JAVA","opaque":{opaque},"#,
                r#""serializeTypeCurrentRPC":"JSON","version":479}}"#
            ),
            code = code,
            topic = topic,
            properties = properties,
            batch = code == SEND_BATCH_MESSAGE,
            opaque = OPAQUE_BASE,
        );
        Self::of_frame(&header, "\"e\":\"", body)
    }

    fn of_frame(header: &str, queue_name: &str, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(8 + header.len() + body.len());
        bytes.extend_from_slice(&u32_of(4 + header.len() + body.len()).to_be_bytes());
        bytes.extend_from_slice(&u32_of(header.len()).to_be_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        let only = |name: &str| all_after(&bytes, name).first().copied();
        Self {
            opaque_at: only("\"opaque\":").unwrap_or_default(),
            queue_at: only(queue_name).unwrap_or_default(),
            offset_at: only("\"queueOffset\":\""),
            key_at: all_after(&bytes, "key-"),
            // The first half of a unique key tells the producer, the second counts.
            unique_at: all_after(&bytes, UNIQUE_PREFIX),
            bytes,
        }
    }
}

const UNIQUE_PREFIX: &str = "FD00000000000000";

/// TAGS, KEYS and UNIQ_KEY with the separators given: as they stand in JSON, or in a batch.
fn properties(name_end: &str, value_end: &str) -> String {
    let key = "0".repeat(KEY_DIGITS);
    let unique = "0".repeat(UNIQUE_DIGITS);
    format!(
        "KEYS{name_end}key-{key}{value_end}UNIQ_KEY{name_end}{UNIQUE_PREFIX}{unique}{value_end}\
         WAIT{name_end}true{value_end}TAGS{name_end}TagA{value_end}"
    )
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|index| b'a' + (index % 23) as u8).collect()
}

/// Positions right behind each occurrence of `name`.
fn all_after(bytes: &[u8], name: &str) -> Vec<usize> {
    let name = name.as_bytes();
    bytes
        .windows(name.len())
        .enumerate()
        .filter(|(_, window)| *window == name)
        .map(|(position, _)| position + name.len())
        .collect()
}

/// Writes `value` in `base` over `digits` bytes, the last digit last.
fn patch(frame: &mut [u8], at: usize, digits: usize, value: u64, base: u64) {
    let mut rest = value;
    for byte in frame[at..at + digits].iter_mut().rev() {
        *byte = b"0123456789ABCDEF"[(rest % base) as usize];
        rest /= base;
    }
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// What the generator needs to know of a response, and the echo server of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: i32,
    pub(super) slot: u32,
    /// Of a pull: where the next one begins; of the request where it begins itself.
    pub(super) next_offset: Option<u64>,
}

/// Finds numbers in JSON headers; remembers where they stood last time, since a server writes
/// all its answers alike.
#[derive(Debug)]
pub(super) struct AnswerReader {
    code_at: usize,
    opaque_at: usize,
    next_offset_at: usize,
    /// As what the offset of a pull stands there.
    offset_name: &'static [u8],
}

impl Default for AnswerReader {
    fn default() -> Self {
        Self::of(b"\"nextBeginOffset\":\"")
    }
}

impl AnswerReader {
    /// Reads the generator's requests instead.
    pub(super) fn of_requests() -> Self {
        Self::of(b"\"queueOffset\":\"")
    }

    fn of(offset_name: &'static [u8]) -> Self {
        Self {
            code_at: 0,
            opaque_at: 0,
            next_offset_at: 0,
            offset_name,
        }
    }

    /// Reads a response's header; `None` where it is not JSON as RocketMQ's servers write it.
    pub(super) fn read(&mut self, header: &[u8]) -> Option<Answer> {
        let code = number_after(header, b"\"code\":", &mut self.code_at)?;
        let opaque = number_after(header, b"\"opaque\":", &mut self.opaque_at)?;
        let next_offset = number_after(header, self.offset_name, &mut self.next_offset_at);
        let slot = u32::try_from(opaque).ok()?.checked_sub(OPAQUE_BASE)?;
        Some(Answer {
            code: i32::try_from(code).ok()?,
            slot,
            next_offset,
        })
    }
}

fn number_after(header: &[u8], name: &[u8], hint: &mut usize) -> Option<u64> {
    let stands_at = |at: usize| header.get(at..at + name.len()) == Some(name);
    if !stands_at(*hint) {
        *hint = (0..header.len().checked_sub(name.len())?).find(|at| stands_at(*at))?;
    }
    let digits = header.get(*hint + name.len()..)?;
    let len = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_patched_in_place() {
        let template = Template::send("T", 10);
        let (mut out, mut sequence) = (Vec::new(), 0x1f);
        template.push(&mut out, 7, 3, &mut sequence);
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains(r#""opaque":1000000007"#), "{text}");
        assert!(text.contains(r#""e":"3""#));
        assert!(text.contains("key-0000000031\\u0002"));
        assert!(text.contains("FD00000000000000000000000000001F\\u0002"));
        assert_eq!((sequence, template.message_count()), (0x20, 1));
        assert_eq!(
            u32::from_be_bytes([out[0], out[1], out[2], out[3]]) as usize,
            out.len() - 4
        );
    }

    #[test]
    fn each_message_of_a_batch_has_its_own_keys() {
        let template = Template::batch("T", 10, 32);
        let (mut out, mut sequence) = (Vec::new(), 0);
        template.push(&mut out, 0, 0, &mut sequence);
        assert_eq!((sequence, template.message_count()), (32, 32));
        assert!(String::from_utf8_lossy(&out).contains("key-0000000031\u{2}"));
    }

    #[test]
    fn an_answer_is_read_wherever_its_fields_stand() {
        let mut reader = AnswerReader::default();
        let java =
            br#"{"code":0,"extFields":{"nextBeginOffset":"64"},"flag":1,"opaque":1000000003}"#;
        let expected = Answer {
            code: 0,
            slot: 3,
            next_offset: Some(64),
        };
        assert_eq!(reader.read(java), Some(expected));
        let other = br#"{"opaque":1000000003,"code":19,"flag":1}"#;
        assert_eq!(
            reader.read(other),
            Some(Answer {
                code: 19,
                slot: 3,
                next_offset: None
            })
        );
        assert_eq!(reader.read(b"{}"), None);
    }
}
