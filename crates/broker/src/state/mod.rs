//! The broker's tables, each kept as a JSON file under `config/` in the store's directory, in the
//! form that a Java broker reads and writes.

pub mod delays;
pub mod groups;
pub mod json_file;
pub mod lost;
pub mod offsets;
pub mod table;
pub mod topics;

use remoting::body::DataVersion;

pub use self::delays::DelayOffsets;
pub use self::groups::GroupTable;
pub use self::json_file::{JsonFile, StateError};
pub use self::offsets::ConsumerOffsets;
pub use self::topics::TopicTable;

/// The version behind `version`: one more change, now.
fn next_version(version: DataVersion) -> DataVersion {
    DataVersion {
        counter: version.counter + 1,
        timestamp: crate::clock::now_ms(),
        ..version
    }
}
