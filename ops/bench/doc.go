// Package bench measures the cost of a check, and compares it with alternatives on
// the same tokens, in one run on one machine.
//
// It is a separate module, so the product's binary has no PostgreSQL client and no
// JWT library. The command tokenledger-bench runs it.
//
// # Comparison
//
// Every contender answers one question: does this secret allow this permission on
// this site, now? tokenledger answers through [verifier.Verifier] over a real
// index on disk. Contenders that look up a record share tokenledger's check of the
// secret's format and its SHA-256. They find a record by the digest, and check its
// state, expiry and scope. Contenders that verify a signature parse the token each
// time, and check expiry and scope. They do not support revocation, as the report
// notes. A wrong answer ends the run.
//
// # Measurement
//
// Contenders take turns in rounds, so other load on the machine affects all alike.
// A turn has two halves. In the first, checks run without a clock between them. It
// gives the mean, the rate and the processor time a check, including that of a
// contender's server. In the second, each check is timed. It gives the quantiles,
// less the cost of reading the clock, which is in the report. Ratios compare the
// medians of one round, which a busy machine disturbs least. The report has their
// median and range over the rounds.
//
// The questions are drawn before the run, over all tokens of the size: uniformly,
// or by Zipf's law.
//
// # Servers
//
// PostgreSQL and Redis come from the system's packages. They run in a folder of
// their own, on a Unix socket only. They are stopped and deleted at the end, also
// if the run is interrupted. A server that is not installed has a line in the
// report.
//
// # Stored
//
// A temporary folder, about 1 GB a million tokens, until the end.
package bench
