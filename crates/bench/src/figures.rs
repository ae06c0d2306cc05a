//! Figures, as they are told.

/// Measured values, in order.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// The spread of `values`.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that `percent` of all do not exceed; not a number when there are none.
    pub(crate) fn at(&self, percent: f64) -> f64 {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    /// All of them.
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }
}

/// A number, or a dash where there is nothing to measure.
pub(crate) fn figure(value: f64) -> String {
    if value.is_finite() && value > 0.0 { format!("{value:.2}") } else { "-".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_values_does_not_exceed_its_percentile() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!([50.0, 75.0, 90.0, 100.0].map(|percent| spread.at(percent)), [2.0, 3.0, 4.0, 4.0]);
        assert!(Spread::of(&[]).at(50.0).is_nan());
    }
}
