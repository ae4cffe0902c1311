//! A plan that is not carried out: what it comes to, and its steps for people.

use crate::delta::Policy;
use crate::error::Result;
use crate::plan::{Method, Plan};
use crate::report::State;
use crate::run::Run;
use crate::store::Capabilities;

/// Steps of a plan that are printed one by one.
const STEPS_MAX: usize = 10_000;

impl Run {
    /// Reports what the plan would do, with its steps if they are wanted.
    pub(crate) fn rehearsed(&mut self, plan: &Plan, with_steps: bool) -> Result<()> {
        self.report.bytes_reused = plan.totals.bytes_reused;
        let (policy, target) = (self.limits().policy(), self.target.store().capabilities());
        let read =
            plan.landings.iter()?.filter(|landing| landing.as_ref().map_or(true, |one| one.method == Method::Read));
        let least =
            read.map(|landing| landing.map(|one| policy.least_bytes(&one.source, one.replaces.as_ref(), target)));
        self.report.bytes_planned_delta = Some(least.sum::<Result<u64>>()?);
        if with_steps {
            self.report.steps = steps(plan, &policy, target)?;
        }
        self.report.state = State::Planned;
        Ok(())
    }
}

/// The plan's steps for people.
fn steps(plan: &Plan, policy: &Policy, target: &Capabilities) -> Result<Vec<String>> {
    // Where directories go as a whole, what is moved aside is gone with all in it.
    let trees = target.trees;
    let mut steps: Vec<String> = plan.trees.iter().take(STEPS_MAX).map(ToString::to_string).collect();
    let mut total = plan.trees.iter().len() as u64 + plan.landings.len() + plan.deletes.len() + plan.directories.len();
    for clear in
        plan.clears.iter()?.filter(|clear| trees && clear.as_ref().map_or(true, |clear| clear.key.is_directory()))
    {
        let key = clear?.key;
        total += 1;
        if steps.len() < STEPS_MAX {
            steps.push(format!("remove   {key}"));
        }
    }
    for landing in plan.landings.iter()?.take(STEPS_MAX) {
        let landing = landing?;
        let base = landing.replaces.as_ref().filter(|_| landing.method == Method::Read && !landing.compare);
        steps.push(match base.map(|base| policy.foreseen(&landing.source, Some(base), target)) {
            Some(Ok(basis)) => format!("{landing} (only what changed, {basis})"),
            Some(Err(why)) => format!("{landing} (whole: {why})"),
            None => landing.to_string(),
        });
    }
    for directory in plan.directories.iter()?.take(STEPS_MAX) {
        steps.push(format!("mkdir    {}", directory?.key));
    }
    for key in plan.deletes.iter()?.take(STEPS_MAX) {
        steps.push(format!("delete   {}", key?));
    }
    if total > steps.len() as u64 {
        steps.push(format!("… and {} more", total - steps.len() as u64));
    }
    Ok(steps)
}
