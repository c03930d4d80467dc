//! Extension fields: the name-value pairs of a header. On the wire all values are text.

use std::fmt::Write;

/// A value to be written; numbers become decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// Text as it is.
    Text(&'a str),
    /// Decimal text.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
}

impl<'a> From<&'a str> for FieldValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for FieldValue<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<i32> for FieldValue<'_> {
    fn from(value: i32) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<bool> for FieldValue<'_> {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

/// Where a typed header writes its fields: a frame under construction, or [`Fields`].
pub trait FieldSink {
    /// Takes one field.
    fn put(&mut self, name: &str, value: FieldValue<'_>);

    /// Takes a field of which the name is known beforehand: `json_name` is it in quotes, with the
    /// colon.
    fn put_known(&mut self, name: &'static str, json_name: &'static str, value: FieldValue<'_>) {
        let _ = json_name;
        self.put(name, value);
    }
}

/// Owned extension fields in the order they were put. There are few, so look-up is a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    pairs: Vec<(String, String)>,
}

impl Fields {
    /// The value of `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// All pairs in the order they were put.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Removes `name` and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let index = self.pairs.iter().position(|(found, _)| found == name)?;
        Some(self.pairs.remove(index).1)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// A second value for a name replaces the first.
impl FieldSink for Fields {
    fn put(&mut self, name: &str, value: FieldValue<'_>) {
        let mut text = String::new();
        match value {
            FieldValue::Text(value) => text.push_str(value),
            // Writing to a string cannot fail.
            FieldValue::Integer(value) => drop(write!(text, "{value}")),
            FieldValue::Boolean(value) => drop(write!(text, "{value}")),
        }
        match self.pairs.iter_mut().find(|(found, _)| found == name) {
            Some(pair) => pair.1 = text,
            None => self.pairs.push((name.to_owned(), text)),
        }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            fields.put(name, FieldValue::Text(value));
        }
        fields
    }
}
