use super::*;
use crate::rules::RulePack;

#[test]
fn placeholder() {
    assert!(RulePack::parse("").is_err());
}
