//! The golden data itself: every set unpacks, holds what PROVENANCE.md says, and every recipe applies.

mod golden;

use golden::{GoldenSet, SETS, TORN_VARIANTS};

#[test]
fn every_set_unpacks_with_its_descriptions() {
    for (name, record_count) in SETS.into_iter().zip([631, 2995, 65]) {
        let set = GoldenSet::unpack(name);
        assert!(
            set.store_dir()
                .join("commitlog/00000000000000000000")
                .is_file(),
            "{name}"
        );
        assert_eq!(
            set.setting("mappedFileSizeCommitLog").as_deref(),
            Some("1048576"),
            "{name}"
        );
        assert_eq!(set.records().len(), record_count, "records of {name}");
        assert!(!set.sent().is_empty() && !set.served().is_empty(), "{name}");
        assert!(
            set.manifest()["commitLogMaxOffset"].as_u64() > Some(0),
            "{name}"
        );
    }
}

#[test]
fn every_recipe_applies() {
    for variant in TORN_VARIANTS {
        let set = GoldenSet::torn(variant);
        assert!(set.store_dir().join("abort").is_file(), "{variant}");
        let expected = golden::torn_manifest(variant);
        assert!(expected["expected_after_recovery"].is_object(), "{variant}");
        let started = golden::torn_after_manifest(variant).is_some();
        assert_eq!(
            started,
            golden::torn_after_served(variant).is_some(),
            "{variant}"
        );
    }
}
