//! The kinds of values that keys have: how each is read, and written back.

use std::path::PathBuf;
use std::time::Duration;

use mmap_core::Advice;
use store::{DeleteWhen, RecoveryPolicy};

use super::{FlushDisk, Transfer, WarmUpWay, value};

/// A kind of values: `parse` reads one or says what is allowed, `show` writes it back.
macro_rules! kind {
    ($name:ident: $type:ty, $parse:expr, |$shown:ident: $view:ty| $show:expr) => {
        pub(super) mod $name {
            use super::*;
            pub(in crate::config) fn parse(given: &str) -> Result<$type, String> {
                ($parse)(given)
            }
            pub(in crate::config) fn show($shown: $view) -> String {
                $show
            }
        }
    };
}

kind!(text: String, value::text, |shown: &str| shown.to_owned());
kind!(flag: bool, value::flag, |shown: &bool| shown.to_string());
kind!(delay_levels: Vec<Duration>, value::delay_levels, |shown: &[Duration]| {
    value::show_delay_levels(shown)
});
kind!(addresses: Vec<String>, value::addresses, |shown: &[String]| shown.join(";"));
kind!(address: String, address_text, |shown: &str| shown.to_owned());
kind!(optional_text: Option<String>, some_text, |shown: &Option<String>| {
    shown.clone().unwrap_or_default()
});
kind!(optional_path: Option<PathBuf>, path, |shown: &Option<PathBuf>| {
    shown.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
});
kind!(flush_disk: FlushDisk, parse_flush_disk, |shown: &FlushDisk| {
    let name = match shown {
        FlushDisk::Async => "ASYNC_FLUSH",
        FlushDisk::Sync => "SYNC_FLUSH",
    };
    name.to_owned()
});
kind!(transfer: Option<Transfer>, parse_transfer, |shown: &Option<Transfer>| {
    match shown {
        None => "java".to_owned(),
        Some(Transfer::Auto) => "auto".to_owned(),
        Some(Transfer::By(way)) => way.to_string(),
    }
});
kind!(delete_when: DeleteWhen, parse_delete_when, |shown: &DeleteWhen| shown.to_string());
kind!(bound: Option<u64>, parse_bound, |shown: &Option<u64>| shown.unwrap_or(0).to_string());
kind!(queue_segment: u64, parse_queue_segment, |shown: &u64| shown.to_string());
kind!(registration_period: Duration, parse_period, |shown: &Duration| millis::show(shown));
kind!(recovery_policy: RecoveryPolicy, parse_recovery_policy, |shown: &RecoveryPolicy| {
    match shown {
        RecoveryPolicy::Report => "report",
        RecoveryPolicy::Refuse => "refuse",
    }
    .to_owned()
});

kind!(warm_up: Option<WarmUpWay>, parse_warm_up, |shown: &Option<WarmUpWay>| {
    name_of(&WARM_UPS, shown)
});
kind!(log_lock: bool, parse_log_lock, |shown: &bool| {
    if *shown { "tail" } else { "none" }.to_owned()
});
kind!(log_advice: Option<Advice>, parse_log_advice, |shown: &Option<Advice>| {
    name_of(&ADVICE, shown)
});

pub(super) mod number {
    pub(in crate::config) fn parse<T: TryFrom<i64>>(
        given: &str,
        least: i64,
        most: i64,
    ) -> Result<T, String> {
        let number = super::value::whole(given, least, most)?;
        T::try_from(number).map_err(|_| format!("a whole number from {least} to {most}"))
    }
    pub(in crate::config) fn show<T: ToString>(shown: &T) -> String {
        shown.to_string()
    }
}

pub(super) mod millis {
    use std::time::Duration;
    pub(in crate::config) fn parse(given: &str, least: i64, most: i64) -> Result<Duration, String> {
        super::number::parse(given, least, most).map(Duration::from_millis)
    }
    pub(in crate::config) fn show(shown: &Duration) -> String {
        shown.as_millis().to_string()
    }
}

pub(super) mod hours {
    use std::time::Duration;
    pub(in crate::config) fn parse(given: &str, least: i64, most: i64) -> Result<Duration, String> {
        let hours: u64 = super::number::parse(given, least, most)?;
        Ok(Duration::from_secs(hours * 3600))
    }
    pub(in crate::config) fn show(shown: &Duration) -> String {
        (shown.as_secs() / 3600).to_string()
    }
}

pub(super) mod seconds {
    use std::time::Duration;
    pub(in crate::config) fn parse(given: &str, least: i64, most: i64) -> Result<Duration, String> {
        super::number::parse(given, least, most).map(Duration::from_secs)
    }
    pub(in crate::config) fn show(shown: &Duration) -> String {
        shown.as_secs().to_string()
    }
}

fn path(given: &str) -> Result<Option<PathBuf>, String> {
    let given = value::text(given)?;
    if given.contains(',') {
        return Err("one directory (a log over several is not there yet)".to_owned());
    }
    Ok(Some(PathBuf::from(given)))
}

fn address_text(given: &str) -> Result<String, String> {
    value::host_and_port(given).map(|_| given.trim().to_owned())
}

fn some_text(given: &str) -> Result<Option<String>, String> {
    value::text(given).map(Some)
}

fn parse_delete_when(given: &str) -> Result<DeleteWhen, String> {
    DeleteWhen::parse(given).map_err(|_| "hours such as 04 or 04;05, from 00 to 23".to_owned())
}

/// 0 is no bound.
fn parse_bound(given: &str) -> Result<Option<u64>, String> {
    let bound: u64 = number::parse(given, 0, i64::MAX)?;
    Ok((bound > 0).then_some(bound))
}

/// `MessageStoreConfig.getMappedFileSizeConsumeQueue` rounds up to whole entries of 20 bytes.
fn parse_queue_segment(given: &str) -> Result<u64, String> {
    number::parse::<u64>(given, 20, i64::from(i32::MAX)).map(|len| len.div_ceil(20) * 20)
}

/// `BrokerController` clamps the period to 10 to 60 seconds.
fn parse_period(given: &str) -> Result<Duration, String> {
    let period = millis::parse(given, 1, i64::MAX)?;
    Ok(period.clamp(Duration::from_secs(10), Duration::from_secs(60)))
}

fn parse_recovery_policy(given: &str) -> Result<RecoveryPolicy, String> {
    match given.trim() {
        "report" => Ok(RecoveryPolicy::Report),
        "refuse" => Ok(RecoveryPolicy::Refuse),
        _ => Err("report or refuse".to_owned()),
    }
}

/// The values of `foliomq.commitLogWarmUp`; `java` leaves it to RocketMQ's key.
const WARM_UPS: [(&str, Option<WarmUpWay>); 6] = [
    ("java", None),
    ("none", Some(WarmUpWay::None)),
    ("window", Some(WarmUpWay::Window)),
    ("touch", Some(WarmUpWay::Touch)),
    ("populate", Some(WarmUpWay::Populate)),
    ("zeros", Some(WarmUpWay::Zeros)),
];

/// The values of `foliomq.commitLogAdvice`; `java` leaves it to RocketMQ's key.
const ADVICE: [(&str, Option<Advice>); 6] = [
    ("java", None),
    ("normal", Some(Advice::Normal)),
    ("random", Some(Advice::Random)),
    ("sequential", Some(Advice::Sequential)),
    ("willneed", Some(Advice::WillNeed)),
    ("hugepage", Some(Advice::HugePage)),
];

fn parse_warm_up(given: &str) -> Result<Option<WarmUpWay>, String> {
    named(&WARM_UPS, given)
}

fn parse_log_advice(given: &str) -> Result<Option<Advice>, String> {
    named(&ADVICE, given)
}

fn parse_log_lock(given: &str) -> Result<bool, String> {
    named(&[("none", false), ("tail", true)], given)
}

/// The value that has a name.
fn named<T: Copy>(values: &[(&str, T)], given: &str) -> Result<T, String> {
    let found = values.iter().find(|(name, _)| *name == given.trim());
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    })
}

/// The name that a value has.
fn name_of<T: PartialEq>(values: &[(&str, T)], shown: &T) -> String {
    let found = values.iter().find(|(_, value)| value == shown);
    found
        .map(|(name, _)| (*name).to_owned())
        .unwrap_or_default()
}

/// `java` leaves it to RocketMQ's key.
fn parse_transfer(given: &str) -> Result<Option<Transfer>, String> {
    match given.trim() {
        "java" => Ok(None),
        "auto" => Ok(Some(Transfer::Auto)),
        way => way
            .parse()
            .map(|way| Some(Transfer::By(way)))
            .map_err(|ways| format!("java, auto, {ways}")),
    }
}

fn parse_flush_disk(given: &str) -> Result<FlushDisk, String> {
    match given.trim() {
        "ASYNC_FLUSH" => Ok(FlushDisk::Async),
        "SYNC_FLUSH" => Ok(FlushDisk::Sync),
        _ => Err("ASYNC_FLUSH or SYNC_FLUSH".to_owned()),
    }
}
