//! The table of consumer groups: `config/subscriptionGroup.json`.
//!
//! RocketMQ 5.3.3 `SubscriptionGroupManager`.

use std::collections::BTreeMap;
use std::sync::Arc;

use remoting::body::{DataVersion, SubscriptionGroupConfig, SubscriptionGroupWrapper};

use super::table::{Record, Table};
use super::topics;

/// Longest group name, in bytes (`TopicValidator.validateGroup`, `Validators`).
const NAME_LEN_MAX: usize = 120;
/// Groups with this prefix are the system's: created even where groups are not.
const SYSTEM_PREFIX: &str = "CID_RMQ_SYS_";

/// The table.
pub type GroupTable = Table<SubscriptionGroupConfig>;

impl Record for SubscriptionGroupConfig {
    type File = SubscriptionGroupWrapper;

    fn file(data_version: DataVersion, records: BTreeMap<String, Self>) -> Self::File {
        SubscriptionGroupWrapper {
            data_version,
            forbidden_table: Some(BTreeMap::new()),
            subscription_group_table: records,
        }
    }

    fn parts(file: Self::File) -> (DataVersion, BTreeMap<String, Self>) {
        (file.data_version, file.subscription_group_table)
    }
}

/// A group with RocketMQ's defaults.
#[must_use]
pub fn group(name: &str) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig {
        group_name: name.to_owned(),
        ..SubscriptionGroupConfig::default()
    }
}

/// The groups that a broker creates at its first start.
#[must_use]
pub fn system_groups() -> Vec<(String, SubscriptionGroupConfig)> {
    const NAMES: [&str; 8] = [
        "TOOLS_CONSUMER",
        "FILTERSRV_CONSUMER",
        "SELF_TEST_C_GROUP",
        "CID_ONS-HTTP-PROXY",
        "CID_ONSAPI_PULL",
        "CID_ONSAPI_PERMISSION",
        "CID_ONSAPI_OWNER",
        "CID_RMQ_SYS_TRANS",
    ];
    NAMES
        .into_iter()
        .map(|name| (name.to_owned(), group(name)))
        .collect()
}

/// Whether a name can be a group's.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_LEN_MAX && topics::is_plain(name)
}

/// What may be made without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCreate {
    /// Any group.
    Allowed,
    /// Groups of the system only.
    SystemOnly,
}

/// The settings of a group, created if it may be (`findSubscriptionGroupConfig`).
#[must_use]
pub fn find_or_create(
    table: &GroupTable,
    name: &str,
    create: AutoCreate,
) -> Option<Arc<SubscriptionGroupConfig>> {
    if let Some(known) = table.find(name) {
        return Some(known);
    }
    let may = create == AutoCreate::Allowed || name.starts_with(SYSTEM_PREFIX);
    (may && is_name(name)).then(|| table.find_or_create(name, || group(name)).0)
}
