//! Combinations to threads: all are bounded first, then explored from the most promising on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use super::super::driver::{Progress, Runner, looks, supervise};
use super::super::filter::Filter;
use super::super::rank::Entry;
use super::super::reduce::Keys;
use super::super::sort::sort;
use super::super::space::Space;
use super::SearchReport;
use super::bounds::Prospect;
use super::explore::{Candidate, Effort, Explorer, Question};
use super::goal::Goal;
use super::known::Known;
use super::region::Axes;
use crate::error::{Error, Result};

/// Candidates left by the first look at all combinations together: more bounds, better order, more memory.
const CANDIDATES: u64 = 1 << 16;
/// Candidates left by the first look at one combination, at most.
const MOST_OF_ONE: u64 = 64;
/// Candidates of one thread that are looked through for hopeless ones.
const MANY: usize = 1 << 17;
/// Explored combinations that a thread keeps, with what was worked out about them.
const KEPT: usize = 8;

/// A region to explore.
struct Task {
    combination: u64,
    candidate: Candidate,
}

/// What all threads share.
struct Work<'a, G> {
    space: &'a Space,
    axes: Axes,
    question: Question<'a, G>,
    known: Known,
    needs_costs: bool,
    /// Candidates to leave of each combination.
    candidates: usize,
    evaluated: Mutex<u128>,
    bounded: AtomicU64,
}

/// Finds what the goal keeps among the rows that pass.
pub(super) fn search<G: Goal>(
    space: &Space,
    runner: Runner,
    goal: &G,
    filters: &[Filter],
    progress: &mut Progress<'_>,
) -> Result<SearchReport> {
    let combinations = space.num_combinations().unwrap_or(u64::MAX);
    let total = space.num_configurations().unwrap_or(u128::MAX);
    let stop = AtomicBool::new(false);
    let objectives = goal.objectives();
    let work = Work {
        space,
        axes: Axes::new(space),
        question: Question::new(goal, filters, runner.isa, &stop),
        known: Known::new(space),
        needs_costs: objectives
            .iter()
            .chain(filters.iter().map(|f| &f.column))
            .chain(goal.keys().map_or(&[][..], Keys::columns))
            .any(|column| column.needs_costs()),
        candidates: usize::try_from((CANDIDATES / combinations).clamp(1, MOST_OF_ONE)).unwrap_or(1),
        evaluated: Mutex::new(0),
        bounded: AtomicU64::new(0),
    };
    let mut done = 0;
    let tasks = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    let most = usize::try_from(combinations.saturating_mul(MOST_OF_ONE)).unwrap_or(usize::MAX);
    let threads = runner.num_threads.clamp(1, most.max(1));
    work.each_thread(threads, &mut done, total, progress, |report| {
        let mut found = Vec::new();
        let mut many = MANY;
        while !stop.load(Ordering::Relaxed) {
            let combination = next.fetch_add(1, Ordering::Relaxed);
            if combination >= combinations || report.send(work.look(combination, &mut found)).is_err() {
                break;
            }
            if found.len() >= many {
                let mut ruled_out = 0;
                found.retain(|Task { candidate, .. }: &Task| {
                    let kept = stop.load(Ordering::Relaxed)
                        || !goal.all_hopeless(&candidate.groups, &candidate.corner, candidate.first_row);
                    ruled_out += if kept { 0 } else { candidate.region.rows() };
                    kept
                });
                many = MANY.max(2 * found.len());
                if report.send(Ok(ruled_out)).is_err() {
                    break;
                }
            }
        }
        if let Ok(mut tasks) = tasks.lock() {
            tasks.append(&mut found);
        }
    })?;
    let tasks = tasks.into_inner().map_err(|_| Error::Interrupted)?;
    let mut order: Vec<(Entry, usize)> = tasks
        .iter()
        .enumerate()
        .map(|(at, Task { candidate, .. })| (Entry(candidate.corner[0], candidate.first_row), at))
        .collect();
    sort(&mut order, |a, b| a.0.cmp(&b.0), &mut looks(&mut |_, _| progress(done, total), total))?;
    let next = AtomicUsize::new(0);
    work.each_thread(threads, &mut done, total, progress, |report| {
        let mut known = VecDeque::new();
        let best_left = || tasks.get(order.get(next.fetch_add(1, Ordering::Relaxed))?.1);
        while let Some(task) = best_left() {
            if stop.load(Ordering::Relaxed) || report.send(work.explore(task, &mut known)).is_err() {
                break;
            }
        }
    })?;
    Ok(SearchReport {
        num_configurations: total,
        num_evaluated: work.evaluated.into_inner().map_err(|_| Error::Interrupted)?,
        num_bounded: work.bounded.into_inner(),
        num_compiled: work.known.num_compiled(),
    })
}

impl<G: Goal> Work<'_, G> {
    /// Runs a body on every thread while the calling one looks up.
    fn each_thread(
        &self,
        threads: usize,
        done: &mut u128,
        total: u128,
        progress: &mut Progress<'_>,
        body: impl Fn(&mpsc::Sender<Result<u128>>) + Sync,
    ) -> Result<()> {
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, body) = (sender.clone(), &body);
                scope.spawn(move || body(&sender));
            }
            drop(sender);
            let result = supervise(&receiver, done, total, progress);
            self.question.stop.store(result.is_err(), Ordering::Relaxed);
            result
        })
    }

    fn explorer(&self, combination: u64) -> Result<Explorer<'_>> {
        let compiled = Arc::new(self.known.combination(self.space, combination)?);
        let prospect = Prospect::new(self.space, &self.axes, compiled, self.needs_costs);
        Ok(Explorer::new(prospect, u128::from(combination) * self.space.rows_per_combination()))
    }

    /// The first look at a combination: leaves what is worth exploring; returns the rows that are settled.
    fn look(&self, combination: u64, tasks: &mut Vec<Task>) -> Result<u128> {
        let mut explorer = self.explorer(combination)?;
        if explorer.prospect.combination.runs.is_err() {
            return Ok(self.axes.whole().rows());
        }
        let (question, mut effort) = (&self.question, Effort::default());
        if let Some(root) = explorer.root(question, &mut effort) {
            explorer.sample(question, &mut effort);
            let mut open = vec![root];
            // The best of a sorted list is divided until there are enough, or only short runs are left.
            while open.len() < self.candidates && !question.stop.load(Ordering::Relaxed) {
                let best = open
                    .iter()
                    .enumerate()
                    .filter(|(_, candidate)| !explorer.is_small(&candidate.region))
                    .min_by(|(_, a), (_, b)| a.corner[0].total_cmp(&b.corner[0]));
                let Some((at, _)) = best else { break };
                let candidate = open.swap_remove(at);
                explorer.divide(question, candidate, &mut open, &mut effort);
            }
            tasks.extend(open.into_iter().map(|candidate| Task { combination, candidate }));
        }
        self.account(&effort);
        Ok(effort.settled)
    }

    /// Explores a candidate; returns the rows that are settled.
    fn explore<'s>(&'s self, task: &Task, known: &mut VecDeque<(u64, Explorer<'s>)>) -> Result<u128> {
        let candidate = &task.candidate;
        if self.question.goal.all_hopeless(&candidate.groups, &candidate.corner, candidate.first_row) {
            return Ok(candidate.region.rows());
        }
        let mut explorer = match known.iter().position(|(index, _)| *index == task.combination) {
            Some(at) => known.remove(at).map(|(_, explorer)| explorer),
            None => None,
        };
        if explorer.is_none() {
            explorer = Some(self.explorer(task.combination)?);
        }
        let Some(mut explorer) = explorer else { return Err(Error::Interrupted) };
        let mut effort = Effort::default();
        explorer.explore(&self.question, candidate.clone(), &mut effort);
        known.push_back((task.combination, explorer));
        if known.len() > KEPT {
            known.pop_front();
        }
        self.account(&effort);
        Ok(effort.settled)
    }

    fn account(&self, effort: &Effort) {
        self.bounded.fetch_add(effort.bounded, Ordering::Relaxed);
        if let Ok(mut evaluated) = self.evaluated.lock() {
            *evaluated += effort.evaluated;
        }
    }
}
