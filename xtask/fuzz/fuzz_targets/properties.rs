//! Any bytes as properties: nothing panics, and the one pass of dispatch finds what a search
//! for each name finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{DispatchFields, Properties, PropertiesBuilder};

fuzz_target!(|bytes: &[u8]| {
    let properties = Properties::new(bytes);
    for (name, value) in properties {
        assert!(!name.is_empty() && !value.is_empty());
        assert!(!name.contains(&1) && !name.contains(&2) && !value.contains(&2));
    }
    let fields = DispatchFields::new(properties);
    assert_eq!(fields.tags, properties.find_bytes("TAGS"));
    for (found, name) in [
        (fields.keys, "KEYS"),
        (fields.unique_key, "UNIQ_KEY"),
        (fields.delay_level, "DELAY"),
        (fields.inner_count, "INNER_NUM"),
        (fields.inner_base, "INNER_BASE"),
        (fields.multi_dispatch, "INNER_MULTI_DISPATCH"),
        (fields.multi_queue_offset, "INNER_MULTI_QUEUE_OFFSET"),
    ] {
        assert_eq!(found, properties.find(name), "{name}");
    }
    let _ = fields.tags_code();
    assert!(fields.index_keys().all(|key| !key.is_empty()));

    let mut builder = PropertiesBuilder::from(properties);
    assert!(builder.as_properties().iter().eq(properties.iter()));
    builder.remove("TAGS");
    assert_eq!(builder.as_properties().find_bytes("TAGS"), None);
    if builder.replace("KEYS", "k").is_ok() {
        assert_eq!(builder.as_properties().find("KEYS"), Some("k"));
    }
});
