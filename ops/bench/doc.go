// Package bench measures what a check costs, side by side with what a user would
// pick instead, on the same tokens, in one run on one machine.
//
// # What is compared
//
// Every contender answers one question: is this secret good for this permission
// on this site, now? tokenledger answers it through [verifier.Verifier] over a
// real index on disk. Those that look something up take the secret's shape and
// its SHA-256 from the same code as tokenledger, find a record by the digest and
// look at its state, expiry and scope. Those that verify a signature parse the
// token each time and look at expiry and scope; they cannot know of a revocation,
// and the report says so. An answer that is wrong ends the run: a fast wrong
// answer is no figure.
//
// # How it is measured
//
// Contenders take turns in rounds, so that what else the machine does hits all
// alike. A turn has two halves. In the first, checks run without a clock between
// them: the mean, the rate and the processor time a check are of this half,
// processor time of a contender's server included. In the second, the clock is
// read before and after each check, and the quantiles are of these single checks,
// less what reading the clock itself costs; that cost is in the report. Ratios are
// of the medians of one round, which is what a busy machine disturbs least; the
// report has their median and range over the rounds.
//
// The secrets that are asked for are drawn beforehand, over all tokens of the
// size: with the same chance each, or by Zipf's law.
//
// # Servers
//
// PostgreSQL and Redis come from the system's packages. They are started in a
// folder of their own, on a Unix socket alone, and are stopped and deleted at the
// end, also when the run is interrupted. One that is not installed is a line in the
// report, never left out silently.
//
// # Stored
//
// Nothing but in a temporary folder, about 1 GB a million tokens, until the end.
//
// The package is a module of its own: the product's binary holds no PostgreSQL
// client and no JWT library. The command tokenledger-bench runs it.
package bench
