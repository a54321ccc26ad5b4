//! How many files each check may keep open, of as many as the agent may have.

/// Divides `total` among checks that follow `wants` files each: none gets more than it wants, and no
/// check has less than another that wants as much.
pub(super) fn shares(wants: &[usize], total: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|at| wants[*at]);
    let mut shares = vec![0; wants.len()];
    let mut left = total;
    for (nth, at) in order.iter().enumerate() {
        let share = wants[*at].min(left / (wants.len() - nth));
        shares[*at] = share;
        left -= share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn those_that_want_little_leave_the_rest_to_others() {
        assert_eq!(shares(&[1, 900, 2], 512), [1, 509, 2]);
        assert_eq!(shares(&[900, 900], 512), [256, 256]);
        assert_eq!(shares(&[3, 4], 512), [3, 4]);
        assert!(shares(&[], 512).is_empty());
    }

    proptest! {
        #[test]
        fn no_more_is_given_than_there_is_and_nothing_is_kept_back(
            wants in prop::collection::vec(0_usize..100, 0..20),
            total in 0_usize..500,
        ) {
            let given = shares(&wants, total);
            let sum: usize = given.iter().sum();
            prop_assert!(sum <= total);
            prop_assert!(given.iter().zip(&wants).all(|(given, want)| given <= want));
            let wanted: usize = wants.iter().sum();
            prop_assert!(sum == wanted.min(total));
        }
    }
}
