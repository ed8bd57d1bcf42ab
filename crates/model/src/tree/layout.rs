//! Where each span stands in the tree: every one exactly once, without recursion, whatever its
//! parent says.

use std::collections::HashMap;
use std::mem;

use super::Entry;
use crate::SpanId;

/// One place in the tree, in drawing order.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) depth: usize,
    /// No sibling follows.
    pub(super) last: bool,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A span, by its index.
    Span { at: usize, parent: Parent },
    /// So many spans lie deeper than is drawn.
    Below(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Parent {
    /// Drawn above, or there is none.
    Known,
    Missing(SpanId),
    Cycle(SpanId),
}

/// Brings spans that are sorted by start into drawing order: first the trees under the roots, then
/// what no root leads to, which is cycles and what hangs on them.
pub(super) fn rows(entries: &[Entry<'_>]) -> Vec<Row> {
    let mut by_id = HashMap::with_capacity(entries.len());
    for (at, (_, span)) in entries.iter().enumerate() {
        by_id.entry(span.context.span_id).or_insert(at);
    }
    let parent_of = |entry: &Entry<'_>| by_id.get(&entry.1.parent_span_id?).copied();
    let parents: Vec<Option<usize>> = entries.iter().map(parent_of).collect();

    let mut layout = Layout {
        rows: Vec::with_capacity(entries.len()),
        children: vec![Vec::new(); entries.len()],
        placed: vec![false; entries.len()],
    };
    for (at, parent) in parents.iter().enumerate() {
        if let Some(parent) = *parent {
            layout.children[parent].push(at);
        }
    }
    for (at, (_, span)) in entries.iter().enumerate() {
        if parents[at].is_none() {
            layout.place(at, span.parent_span_id.map_or(Parent::Known, Parent::Missing));
        }
    }
    let mut seen = vec![false; entries.len()];
    for at in 0..entries.len() {
        if !layout.placed[at] {
            let first = first_of_cycle(at, &parents, &mut seen);
            let parent = entries[first].1.parent_span_id;
            layout.place(first, parent.map_or(Parent::Known, Parent::Cycle));
        }
    }
    layout.rows
}

/// The earliest span of the cycle that the ancestors of `at` run into.
///
/// Cost: the spans passed, which are then all placed, so each is passed twice at most.
fn first_of_cycle(at: usize, parents: &[Option<usize>], seen: &mut [bool]) -> usize {
    // A span without a parent is a root, and then it and all below it are placed already.
    let above = |at: usize| parents[at].unwrap_or(at);
    let mut on_cycle = at;
    while !mem::replace(&mut seen[on_cycle], true) {
        on_cycle = above(on_cycle);
    }
    let (mut first, mut next) = (on_cycle, above(on_cycle));
    while next != on_cycle {
        first = first.min(next);
        next = above(next);
    }
    first
}

struct Layout {
    rows: Vec<Row>,
    children: Vec<Vec<usize>>,
    placed: Vec<bool>,
}

impl Layout {
    /// Places a root and all that is below it.
    fn place(&mut self, root: usize, parent: Parent) {
        self.placed[root] = true;
        let mut open = vec![(root, 0, true, parent)];
        while let Some((at, depth, last, parent)) = open.pop() {
            self.rows.push(Row { depth, last, what: What::Span { at, parent } });
            let below = self.take_children(at);
            if depth < DEPTH_MAX {
                let youngest = below.last().copied();
                let below = below.into_iter().rev();
                open.extend(below.map(|at| (at, depth + 1, Some(at) == youngest, Parent::Known)));
            } else if !below.is_empty() {
                let what = What::Below(self.place_unseen(below));
                self.rows.push(Row { depth: depth + 1, last: true, what });
            }
        }
    }

    /// Takes spans and all below them out of the drawing; returns how many.
    fn place_unseen(&mut self, mut open: Vec<usize>) -> usize {
        let mut count = 0;
        while let Some(at) = open.pop() {
            count += 1;
            open.extend(self.take_children(at));
        }
        count
    }

    /// A span has one parent, so only the root of a cycle can be met again.
    fn take_children(&mut self, at: usize) -> Vec<usize> {
        let mut children = mem::take(&mut self.children[at]);
        children.retain(|&child| !mem::replace(&mut self.placed[child], true));
        children
    }
}

/// Levels drawn: the indentation stays within a screen's width.
const DEPTH_MAX: usize = 20;
