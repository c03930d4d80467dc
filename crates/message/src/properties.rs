//! The properties text: `name 0x01 value 0x02 name 0x01 value 0x02 ...`, read by Java's rules
//! (RocketMQ 5.3.3 `MessageDecoder.string2messageProperties`).

use crate::bytes::find_byte;
use crate::error::EncodeError;

/// Between a name and its value.
pub(crate) const NAME_VALUE_SEPARATOR: u8 = 0x01;
/// Behind each pair.
pub(crate) const PROPERTY_SEPARATOR: u8 = 0x02;

/// A borrowed properties text.
///
/// Pairs that Java's parser drops are not seen: those without 0x01, with an empty name, with an
/// empty value. A last pair without its 0x02 counts. Of equal names the last one counts.
///
/// ```
/// let properties = message::Properties::new(b"a\x01b\x02c\x01\x02d\x01e");
/// let pairs: Vec<_> = properties.iter().collect();
/// assert_eq!(pairs, [(&b"a"[..], &b"b"[..]), (b"d", b"e")]);
/// assert_eq!(properties.find("d"), Some("e"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

/// The pairs of a [`Properties`], in order.
#[derive(Clone, Debug)]
pub struct PropertiesIter<'a> {
    rest: &'a [u8],
}

/// An owned properties text that is being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuilder {
    bytes: Vec<u8>,
}

impl<'a> Properties<'a> {
    /// Reads these bytes as properties; any bytes will do.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The text as it stands in the record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The pairs of name and value in order; a name may come twice. Bytes, because nothing checks
    /// the text's encoding.
    pub fn iter(&self) -> PropertiesIter<'a> {
        PropertiesIter { rest: self.bytes }
    }

    /// The value that counts for `name`: the last one.
    pub fn find_bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .filter(|(found, _)| *found == name.as_bytes())
            .last()
            .map(|(_, value)| value)
    }

    /// As [`Properties::find_bytes`], for text; a value that is not UTF-8 counts as absent.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.find_bytes(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let segment = self.next_segment();
            if let Some(pair) = split_segment(segment) {
                return Some(pair);
            }
        }
        None
    }
}

impl<'a> PropertiesIter<'a> {
    /// Takes the bytes up to the next 0x02, which is not among them, or to the end.
    #[inline]
    fn next_segment(&mut self) -> &'a [u8] {
        let end = find_byte(self.rest, PROPERTY_SEPARATOR).unwrap_or(self.rest.len());
        let (segment, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest.split_first().map_or(&[], |(_, behind)| behind);
        segment
    }
}

impl PropertiesBuilder {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair at the end; it counts, should the name be there already.
    ///
    /// # Errors
    /// [`EncodeError::Property`] if a reader would not find the pair again: an empty name or
    /// value, a separator (0x01 or 0x02) in the name, 0x02 in the value. Nothing is added then.
    pub fn push(&mut self, name: &str, value: &str) -> Result<&mut Self, EncodeError> {
        let problem = if name.is_empty() {
            Some("the name is empty")
        } else if value.is_empty() {
            Some("the value is empty")
        } else if name
            .bytes()
            .any(|b| b == NAME_VALUE_SEPARATOR || b == PROPERTY_SEPARATOR)
        {
            Some("the name contains a separator (0x01 or 0x02)")
        } else if value.bytes().any(|b| b == PROPERTY_SEPARATOR) {
            Some("the value contains the separator 0x02")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(EncodeError::Property {
                name: name.to_owned(),
                problem,
            });
        }
        self.push_pair(name.as_bytes(), value.as_bytes());
        Ok(self)
    }

    /// Takes out every pair of this name, then adds the pair.
    ///
    /// # Errors
    /// As [`PropertiesBuilder::push`]; nothing is changed then.
    pub fn replace(&mut self, name: &str, value: &str) -> Result<&mut Self, EncodeError> {
        let mut changed = Self::default();
        changed.extend(Properties::new(&self.bytes), |found| {
            found != name.as_bytes()
        });
        changed.push(name, value)?;
        *self = changed;
        Ok(self)
    }

    /// Takes out every pair of this name.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        let mut changed = Self::default();
        changed.extend(Properties::new(&self.bytes), |found| {
            found != name.as_bytes()
        });
        *self = changed;
        self
    }

    /// What is in it so far.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties::new(&self.bytes)
    }

    /// The text, each pair with its 0x02.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds the pairs whose names `keep` wants.
    fn extend(&mut self, properties: Properties<'_>, keep: impl Fn(&[u8]) -> bool) {
        for (name, value) in properties {
            if keep(name) {
                self.push_pair(name, value);
            }
        }
    }

    fn push_pair(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.reserve(name.len() + value.len() + 2);
        self.bytes.extend_from_slice(name);
        self.bytes.push(NAME_VALUE_SEPARATOR);
        self.bytes.extend_from_slice(value);
        self.bytes.push(PROPERTY_SEPARATOR);
    }
}

impl From<Properties<'_>> for PropertiesBuilder {
    /// Takes over every pair, doubles too; what a reader would drop is dropped.
    fn from(properties: Properties<'_>) -> Self {
        let mut builder = Self {
            bytes: Vec::with_capacity(properties.bytes.len() + 1),
        };
        builder.extend(properties, |_| true);
        builder
    }
}

/// The pair in the bytes between two 0x02; `None` for one that Java drops.
#[inline]
fn split_segment(segment: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = segment.split_at_checked(find_byte(segment, NAME_VALUE_SEPARATOR)?)?;
    let (_, value) = rest.split_first()?;
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Properties::new(bytes)
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    /// What RocketMQ 5.3.3's parser made of these.
    #[test]
    fn java_vectors() {
        assert_eq!(
            pairs(b"a\x01b\x02c\x01\x02d\x01e"),
            owned(&[("a", "b"), ("d", "e")])
        );
        assert_eq!(
            pairs(b"\x01v\x02xy\x02kk\x01vv\x02"),
            owned(&[("kk", "vv")])
        );
    }

    #[test]
    fn values_may_hold_the_first_separator() {
        assert_eq!(pairs(b"a\x01b\x01c\x02"), owned(&[("a", "b\u{1}c")]));
        assert_eq!(pairs(b"a\x01\x01\x02"), owned(&[("a", "\u{1}")]));
    }

    #[test]
    fn last_of_equal_names_counts() {
        let properties = Properties::new(b"U\x01own\x02T\x01t\x02U\x01outer\x02");
        assert_eq!(properties.find("U"), Some("outer"));
        assert_eq!(properties.find("T"), Some("t"));
        assert_eq!(properties.find("t"), None);
    }

    #[test]
    fn value_that_is_no_text_is_absent_as_text() {
        let properties = Properties::new(b"a\x01\xff\x02");
        assert_eq!(properties.find("a"), None);
        assert_eq!(properties.find_bytes("a"), Some(&b"\xff"[..]));
    }

    #[test]
    fn builder_refuses_what_cannot_be_read_back() {
        let mut builder = PropertiesBuilder::new();
        for (name, value) in [
            ("", "v"),
            ("n", ""),
            ("n\u{1}", "v"),
            ("n\u{2}", "v"),
            ("n", "v\u{2}"),
        ] {
            assert!(builder.push(name, value).is_err(), "{name:?} {value:?}");
            assert!(builder.replace(name, value).is_err(), "{name:?} {value:?}");
        }
        builder.push("n", "a\u{1}b").unwrap();
        assert_eq!(builder.finish(), b"n\x01a\x01b\x02");
    }

    #[test]
    fn builder_replaces_and_removes_every_double() {
        let mut builder =
            PropertiesBuilder::from(Properties::new(b"a\x01b\x02xx\x02c\x01d\x02a\x01e"));
        assert_eq!(
            builder.as_properties().bytes(),
            b"a\x01b\x02c\x01d\x02a\x01e\x02"
        );
        builder.replace("a", "f").unwrap();
        assert_eq!(builder.as_properties().bytes(), b"c\x01d\x02a\x01f\x02");
        builder.remove("c").remove("none");
        assert_eq!(builder.finish(), b"a\x01f\x02");
    }

    /// Java's parser, word for word.
    fn java_parser(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let find = |byte, from: usize| {
            text.iter()
                .skip(from)
                .position(|b| *b == byte)
                .map(|position| position + from)
        };
        let mut pairs = Vec::new();
        let mut index = 0;
        while index < text.len() {
            let new_index = find(2, index).unwrap_or(text.len());
            if new_index - index >= 3
                && let Some(separator) = find(1, index)
                && separator > index
                && separator < new_index - 1
            {
                pairs.push((
                    text[index..separator].to_vec(),
                    text[separator + 1..new_index].to_vec(),
                ));
            }
            index = new_index + 1;
        }
        pairs
    }

    proptest! {
        #[test]
        fn reads_as_java_does(text in prop::collection::vec(0u8..5, 0..40)) {
            let ours: Vec<_> = Properties::new(&text)
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect();
            prop_assert_eq!(ours, java_parser(&text));
        }

        #[test]
        fn reads_back_what_was_built(
            pairs in prop::collection::vec(("[^\u{1}\u{2}]{1,8}", "[^\u{2}]{1,8}"), 0..8)
        ) {
            let mut builder = PropertiesBuilder::new();
            for (name, value) in &pairs {
                builder.push(name, value).unwrap();
            }
            let bytes = builder.finish();
            prop_assert_eq!(super::tests::pairs(&bytes), pairs);
        }
    }
}
