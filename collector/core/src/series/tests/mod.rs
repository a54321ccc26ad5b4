//! Round trips, damage, and the size of a realistic hour.

mod chunks;
mod limits;
mod machine;
mod properties;

use super::*;

fn names(names: &[&str]) -> Names {
    names.iter().map(|name| Arc::from(*name)).collect()
}
