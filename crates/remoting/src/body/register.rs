//! A broker's registration with a name server: 103.
//!
//! Plain it is JSON. Compressed (header `compressed=true`) it is one zlib stream of sections, each
//! behind its length or count, big-endian and of 4 bytes:
//!
//! | section | content |
//! |---|---|
//! | length | `DataVersion` as JSON |
//! | count | per topic a length and `name readQueueNums writeQueueNums perm filterType attributes` |
//! | length | JSON array of filter servers |
//! | count | since 5.0: per mapping a length and `TopicQueueMappingInfo` as JSON |
//!
//! (RocketMQ 5.3.3 `RegisterBrokerBody`.) Order and system flag of a topic are lost in it.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::topic::{TopicConfig, TopicConfigAndMappingSerializeWrapper, TopicFilterType};
use crate::error::BodyError;
use crate::json;

/// Body of `REGISTER_BROKER`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegisterBrokerBody {
    /// Filter servers, which are obsolete.
    pub filter_server_list: Vec<String>,
    /// The broker's topics.
    pub topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper,
}

/// Most bytes that a compressed registration may inflate to.
const INFLATED_LEN_MAX: usize = 64 * 1_024 * 1_024;

/// The CRC-32 of a registration's body as sent, its sign bit cleared: header field `bodyCrc32`.
#[must_use]
pub fn register_body_crc(body: &[u8]) -> i32 {
    let mut crc = flate2::Crc::new();
    crc.update(body);
    (crc.sum() & 0x7fff_ffff) as i32
}

impl RegisterBrokerBody {
    /// Writes the compressed form.
    ///
    /// # Errors
    /// A section is longer than its length field can say.
    pub fn compress(&self) -> Result<Vec<u8>, BodyError> {
        let wrapper = &self.topic_config_serialize_wrapper;
        let mut sections = Vec::new();
        push_section(&mut sections, &json::encode(&wrapper.data_version)?)?;
        push_count(&mut sections, wrapper.topic_config_table.len())?;
        for topic in wrapper.topic_config_table.values() {
            push_section(&mut sections, &topic_text(topic)?)?;
        }
        push_section(&mut sections, &json::encode(&self.filter_server_list)?)?;
        push_count(&mut sections, wrapper.topic_queue_mapping_info_map.len())?;
        for mapping in wrapper.topic_queue_mapping_info_map.values() {
            push_section(&mut sections, &json::encode(mapping)?)?;
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let deflated = encoder.write_all(&sections).and_then(|()| encoder.finish());
        deflated.map_err(|error| BodyError::Zlib(error.to_string()))
    }

    /// Reads the compressed form. Brokers before 5.0 end it before the mappings.
    ///
    /// # Errors
    /// The bytes are not a zlib stream of those sections, or inflate to more than 64 MiB.
    pub fn decompress(body: &[u8]) -> Result<Self, BodyError> {
        let inflated = inflate(body, INFLATED_LEN_MAX)?;
        let mut sections = Sections { rest: &inflated };
        let mut registration = Self::default();
        let wrapper = &mut registration.topic_config_serialize_wrapper;
        wrapper.data_version = json::decode(sections.section("data version")?)?;
        for _ in 0..sections.count("topics")? {
            let topic = parse_topic(sections.section("topic")?)?;
            wrapper
                .topic_config_table
                .insert(topic.topic_name.clone(), topic);
        }
        registration.filter_server_list = json::decode(sections.section("filter servers")?)?;
        if !sections.rest.is_empty() {
            for _ in 0..sections.count("mappings")? {
                let mapping: Value = json::decode(sections.section("mapping")?)?;
                let topic = mapping
                    .get("topic")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                wrapper
                    .topic_queue_mapping_info_map
                    .insert(topic.to_owned(), mapping);
            }
        }
        Ok(registration)
    }
}

fn push_section(sections: &mut Vec<u8>, section: &[u8]) -> Result<(), BodyError> {
    push_count(sections, section.len())?;
    sections.extend_from_slice(section);
    Ok(())
}

fn push_count(sections: &mut Vec<u8>, count: usize) -> Result<(), BodyError> {
    let limit = i32::MAX as usize;
    let what = "bytes or entries in one section";
    let count = i32::try_from(count).map_err(|_| BodyError::TooLarge { what, limit })?;
    sections.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

/// Inflates a zlib stream to at most `limit` bytes.
fn inflate(body: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut inflated = Vec::new();
    let mut decoder = ZlibDecoder::new(body).take(limit as u64 + 1);
    decoder
        .read_to_end(&mut inflated)
        .map_err(|error| BodyError::Zlib(error.to_string()))?;
    if inflated.len() > limit {
        return Err(BodyError::TooLarge {
            what: "inflated bytes",
            limit,
        });
    }
    Ok(inflated)
}

struct Sections<'b> {
    rest: &'b [u8],
}

impl<'b> Sections<'b> {
    fn count(&mut self, what: &'static str) -> Result<usize, BodyError> {
        let room = self.rest.len();
        let Some((count, rest)) = self.rest.split_first_chunk::<4>() else {
            return Err(BodyError::BinaryLength { what, len: 4, room });
        };
        self.rest = rest;
        let count = i32::from_be_bytes(*count);
        let wrong = |_| BodyError::BinaryLength {
            what,
            len: i64::from(count),
            room,
        };
        usize::try_from(count).map_err(wrong)
    }

    fn section(&mut self, what: &'static str) -> Result<&'b [u8], BodyError> {
        let len = self.count(what)?;
        let room = self.rest.len();
        let Some((section, rest)) = self.rest.split_at_checked(len) else {
            return Err(BodyError::BinaryLength {
                what,
                len: len as i64,
                room,
            });
        };
        self.rest = rest;
        Ok(section)
    }
}

fn topic_text(topic: &TopicConfig) -> Result<Vec<u8>, BodyError> {
    let filter_type = match topic.topic_filter_type {
        TopicFilterType::SingleTag => "SINGLE_TAG",
        TopicFilterType::MultiTag => "MULTI_TAG",
    };
    let TopicConfig {
        topic_name,
        read_queue_nums,
        write_queue_nums,
        perm,
        ..
    } = topic;
    let text = format!("{topic_name} {read_queue_nums} {write_queue_nums} {perm} {filter_type} ");
    let mut text = text.into_bytes();
    text.extend_from_slice(&json::encode(&topic.attributes)?);
    Ok(text)
}

fn parse_topic(text: &[u8]) -> Result<TopicConfig, BodyError> {
    let wrong = |reason: &str| BodyError::Shape {
        expected: "TopicConfig",
        reason: format!(
            "{reason} in {:?}",
            crate::error::shorten(&String::from_utf8_lossy(text))
        ),
    };
    let parts = std::str::from_utf8(text).map_err(|_| wrong("no UTF-8"))?;
    let mut parts = parts.splitn(6, ' ');
    let mut part = || parts.next().ok_or_else(|| wrong("too few parts"));
    let topic_name = part()?.to_owned();
    let mut integer = || part()?.parse::<i32>().map_err(|_| wrong("no integer"));
    let (read_queue_nums, write_queue_nums, perm) = (integer()?, integer()?, integer()?);
    let topic_filter_type = match part()? {
        "MULTI_TAG" => TopicFilterType::MultiTag,
        _ => TopicFilterType::SingleTag,
    };
    // Brokers before 5.0 send none.
    let attributes = match parts.next() {
        Some(text) if !text.is_empty() => json::decode(text.as_bytes())?,
        _ => Default::default(),
    };
    Ok(TopicConfig {
        attributes,
        perm,
        read_queue_nums,
        topic_filter_type,
        topic_name,
        write_queue_nums,
        ..TopicConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflated_bytes_are_bounded() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&[0; 10_000]).unwrap();
        let deflated = encoder.finish().unwrap();
        assert!(deflated.len() < 100);
        assert_eq!(inflate(&deflated, 10_000).unwrap().len(), 10_000);
        let what = "inflated bytes";
        assert_eq!(
            inflate(&deflated, 9_999),
            Err(BodyError::TooLarge { what, limit: 9_999 })
        );
    }
}
