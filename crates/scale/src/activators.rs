//! How many gateways stand in front of a revision on a cluster.

/// Fewest activators in front of a revision.
pub const MIN_ACTIVATORS: i32 = 2;

/// Number of activators for `ready` instances of `total` capacity each.
///
/// `target_burst_capacity` as in the spec: 0 means requests go straight to instances, so only the minimum is
/// kept for the way from zero. `activator_capacity` is what one activator carries, at least 1.
pub fn number(ready: u32, total: f64, target_burst_capacity: f64, activator_capacity: f64) -> i32 {
    if target_burst_capacity == 0.0 {
        return MIN_ACTIVATORS;
    }
    let capacity = f64::from(ready) * total + target_burst_capacity.max(0.0);
    // `as` saturates, which is the wanted answer for absurd inputs.
    ((capacity / activator_capacity.max(1.0)).ceil() as i32).max(MIN_ACTIVATORS)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn without_burst_capacity_the_minimum_stays() {
        assert_eq!(number(1000, 100.0, 0.0, 100.0), 2);
    }

    #[test]
    fn burst_capacity_is_shared_between_activators() {
        // (5 * 100 + 200) / 100
        assert_eq!(number(5, 100.0, 200.0, 100.0), 7);
        assert_eq!(number(5, 100.0, 201.0, 100.0), 8);
        assert_eq!(number(0, 100.0, 10.0, 100.0), 2);
    }

    #[test]
    fn always_in_the_path_counts_capacity_alone() {
        assert_eq!(number(5, 100.0, -1.0, 100.0), 5);
        assert_eq!(number(1, 100.0, -1.0, 100.0), 2);
    }
}
