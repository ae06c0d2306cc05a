//! The scale a user allows: `min-scale`, `max-scale`, `initial-scale`.

/// Limits of a revision's scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Annotation or configuration `min-scale`; 0 is none.
    pub min: i32,
    /// Annotation or configuration `max-scale`; 0 is none.
    pub max: i32,
    /// Annotation or configuration `initial-scale`.
    pub initial: i32,
    /// Whether the initial scale was reached once.
    pub initialized: bool,
    /// Whether no route leads to the revision: then min and initial scale do not count.
    pub unreachable: bool,
}

impl Bounds {
    /// The lower limit that holds now.
    pub fn lower(&self) -> i32 {
        if self.unreachable {
            return 0;
        }
        let waiting_for_initial = self.initial > 1 && !self.initialized;
        if waiting_for_initial { self.min.max(self.initial) } else { self.min }
    }

    /// `wanted` within the limits. The upper limit wins over the lower one.
    pub fn clamp(&self, wanted: i32) -> i32 {
        let raised = wanted.max(self.lower());
        if self.max > 0 { raised.min(self.max) } else { raised }
    }

    /// Ready instances that make the revision active: 0 only before it was initialised with
    /// `initial-scale: 0`.
    pub fn active_threshold(&self) -> i32 {
        let min = if self.unreachable { 0 } else { self.min };
        if self.initialized { min.max(1) } else { min.max(self.initial) }
    }
}

#[cfg(test)]
mod tests {
    use super::Bounds;

    #[test]
    fn limits_hold_and_zero_is_no_limit() {
        let bounds = Bounds { min: 2, max: 5, initial: 1, initialized: true, unreachable: false };
        assert_eq!([0, 3, 9].map(|wanted| bounds.clamp(wanted)), [2, 3, 5]);
        let open = Bounds { min: 0, max: 0, ..bounds };
        assert_eq!([0, 3, 9].map(|wanted| open.clamp(wanted)), [0, 3, 9]);
    }

    #[test]
    fn the_initial_scale_holds_until_it_was_reached() {
        let bounds = Bounds { min: 1, max: 0, initial: 3, initialized: false, unreachable: false };
        assert_eq!(bounds.clamp(0), 3);
        assert_eq!(Bounds { initialized: true, ..bounds }.clamp(0), 1);
        assert_eq!(Bounds { initial: 1, min: 0, ..bounds }.clamp(0), 0);
    }

    #[test]
    fn a_revision_without_a_route_may_vanish() {
        let bounds = Bounds { min: 4, max: 0, initial: 3, initialized: false, unreachable: true };
        assert_eq!(bounds.clamp(0), 0);
    }

    #[test]
    fn the_active_threshold_may_be_zero_only_before_initialisation() {
        let bounds = Bounds { min: 0, max: 0, initial: 0, initialized: false, unreachable: false };
        assert_eq!(bounds.active_threshold(), 0);
        assert_eq!(Bounds { initialized: true, ..bounds }.active_threshold(), 1);
        assert_eq!(Bounds { initial: 3, ..bounds }.active_threshold(), 3);
        assert_eq!(Bounds { min: 4, initial: 3, ..bounds }.active_threshold(), 4);
    }
}
