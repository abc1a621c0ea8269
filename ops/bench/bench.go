package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config describes a run.
type Config struct {
	// Tokens are the sizes, each 16 or more.
	Tokens []int
	// Threads are the numbers of threads that ask at once. The comparison uses
	// the first; the others have a line of their own.
	Threads []int
	// Duration is how long each contender is measured in each cell, over all
	// rounds.
	Duration time.Duration
	// Rivals are the contenders to compare with, by their names in [Rivals].
	Rivals []string
	// Seed determines the tokens and the questions.
	Seed uint64
	// Dir is the parent of the temporary folder. Empty means the system's.
	Dir string
	// Progress receives a line for each step. Nil discards it.
	Progress io.Writer
}

// The limits of a configuration.
const (
	minTokens   = revokedEvery
	maxTokens   = 100_000_000
	maxThreads  = 256
	minDuration = 10 * time.Millisecond
	maxDuration = time.Hour
	rounds      = 5
	flowRate    = 1000 // revocations a second

	progressEvery = 2 * time.Second
)

// Validate returns all errors in a configuration, joined.
func (c Config) Validate() error {
	var problems []error
	bad := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	if len(c.Tokens) == 0 {
		bad("tokens: name at least one size")
	}
	for _, n := range c.Tokens {
		if n < minTokens || n > maxTokens {
			bad("tokens: %d is not between %d and %d", n, minTokens, maxTokens)
		}
	}
	if len(c.Threads) == 0 {
		bad("threads: name at least one number")
	}
	for _, n := range c.Threads {
		if n < 1 || n > maxThreads {
			bad("threads: %d is not between 1 and %d", n, maxThreads)
		}
	}
	if c.Duration < minDuration || c.Duration > maxDuration {
		bad("duration: %s is not between 10ms and 1h", c.Duration)
	}
	if _, err := choose(c.Rivals); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// cells returns the cases for each size: first the base case, then cases that
// differ from it in one or two settings.
func (c Config) cells() []Cell {
	first := c.Threads[0]
	cells := []Cell{
		{Kind: Hit, Spread: Uniform, Threads: first},
		{Kind: Hit, Spread: Zipf, Threads: first},
		{Kind: Miss, Spread: Uniform, Threads: first},
		{Kind: Garbage, Spread: Uniform, Threads: first},
		{Kind: Revoked, Spread: Uniform, Threads: first},
		{Kind: Hit, Spread: Uniform, Threads: first, Flow: flowRate},
		{Kind: Hit, Spread: Uniform, Threads: first, Collect: true},
		{Kind: Hit, Spread: Uniform, Threads: first, Batch: quickBatch},
	}
	for _, n := range c.Threads[1:] {
		cells = append(cells,
			Cell{Kind: Hit, Spread: Uniform, Threads: n},
			Cell{Kind: Hit, Spread: Uniform, Threads: n, Flow: flowRate})
	}
	return cells
}

// doomed returns the number of tokens for the revocations of one size.
func (c Config) doomed() int {
	n := 0
	for _, cell := range c.cells() {
		n += cell.Flow
	}
	// A turn takes somewhat longer than planned.
	return int(float64(n)*c.Duration.Seconds()*1.5) + n/5*rounds
}

// Run measures. Before it returns, it stops the servers that it started and
// deletes what it wrote. It returns an error if a contender answers wrongly.
func Run(ctx context.Context, c Config) (_ *Report, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	chosen, err := choose(c.Rivals)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.Dir, "tlbench-") // short: a Unix socket's path is
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// A server that runs as another user has to reach its own folder below.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	cost := clockCost()
	r := &Report{Machine: machine(), Seed: c.Seed, Duration: c.Duration, Rounds: rounds, ClockCost: cost}
	all, others := stolen()
	sizes := slices.Sorted(slices.Values(c.Tokens))
	for i, n := range sizes {
		f := &field{
			Config: c, begun: time.Now(), clock: cost, size: n, last: i == len(sizes)-1,
			tokens: &population{seed: c.Seed, size: n, doomed: c.doomed()},
			dir:    filepath.Join(dir, fmt.Sprint(i)), ready: map[string]instance{},
		}
		size, err := f.run(ctx, chosen)
		if err != nil {
			return nil, fmt.Errorf("%s tokens: %w", short(n), err)
		}
		r.Sizes = append(r.Sizes, size)
	}
	if a, o := stolen(); a > all {
		r.Stolen = (o - others) / (a - all)
	}
	return r, nil
}

// field is the measurement of one size.
type field struct {
	Config
	begun  time.Time
	clock  time.Duration
	size   int
	last   bool // of the sizes
	tokens *population
	dir    string

	// By the contender's ID:
	ready    map[string]instance
	sessions map[string][]checker // one for each thread
	flows    map[string]*flow     // of those that can revoke
}

func (f *field) say(format string, a ...any) {
	if f.Progress != nil {
		_, _ = fmt.Fprintf(f.Progress, "%6s tokens  %5.0f s  %s\n",
			short(f.size), time.Since(f.begun).Seconds(), fmt.Sprintf(format, a...))
	}
}

func (f *field) run(ctx context.Context, chosen []contender) (_ Size, err error) {
	size := Size{Tokens: f.size, Doomed: f.tokens.doomed}
	var started []instance
	defer func() {
		for _, in := range slices.Backward(started) {
			err = errors.Join(err, in.stop())
		}
		err = errors.Join(err, os.RemoveAll(f.dir))
	}()
	for _, c := range chosen {
		in, l, err := f.start(ctx, c)
		if err != nil {
			if why, is := missing(err); is {
				f.say("%s: %s", c.ID, why)
				l.Missing = why
				size.Contenders = append(size.Contenders, l)
				continue
			}
			return size, fmt.Errorf("%s: %w", c.ID, err)
		}
		started = append(started, in)
		f.ready[c.ID] = in
		size.Contenders = append(size.Contenders, l)
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.open(); err != nil {
		return size, err
	}
	for _, cell := range f.cells() {
		w, err := newWorkload(f.tokens, cell.Kind, cell.Spread, draws(f.size))
		if err != nil {
			return size, err
		}
		freeMemory()
		f.say("%s", cell)
		results, err := f.compare(ctx, cell, chosen, w)
		if err != nil {
			return size, fmt.Errorf("%s: %w", cell, err)
		}
		size.Results = append(size.Results, results...)
	}
	if h, ok := f.ready["http"].(*httpInstance); ok && f.last {
		if size.HTTP, err = f.overHTTP(ctx, h); err != nil {
			return size, err
		}
	}
	return size, f.gather(&size)
}

// open opens a session for each thread of each contender that is ready.
func (f *field) open() error {
	f.sessions, f.flows = map[string][]checker{}, map[string]*flow{}
	for id, in := range f.ready {
		for range slices.Max(f.Threads) {
			s, err := in.session()
			if err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			f.sessions[id] = append(f.sessions[id], s)
		}
		if r, ok := in.(revoker); ok {
			f.flows[id] = &flow{of: r, next: f.size, last: f.tokens.all()}
		}
	}
	return nil
}

func (f *field) close() (err error) {
	for _, list := range f.sessions {
		for _, s := range list {
			err = errors.Join(err, s.close())
		}
	}
	return err
}

// start fills one contender, and measures the memory that it takes.
func (f *field) start(ctx context.Context, c contender) (instance, Contender, error) {
	l := Contender{ID: c.ID, Name: c.Name}
	dir := filepath.Join(f.dir, c.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, l, err
	}
	f.say("%s: filling", c.ID)
	begun := time.Now()
	freeMemory()
	before := residentBytes()
	in, err := c.start(ctx, &stand{tokens: f.tokens, dir: dir, say: f.say, ready: f.ready})
	if err != nil {
		return nil, l, err
	}
	if p, ok := in.(*product); ok {
		f.say("%s: opening it again", c.ID)
		if err := p.reopen(); err != nil {
			return nil, l, errors.Join(err, in.stop())
		}
	}
	freeMemory()
	if c.inProcess && !c.forgets && !strings.HasPrefix(c.ID, "http") {
		l.MemoryPerToken = float64(max(0, residentBytes()-before)) / float64(f.tokens.all())
		l.MemoryIs = "resident in this process"
	}
	l.Filled = time.Since(begun)
	return in, l, nil
}

// gather adds each contender's own figures: memory, disk, version.
func (f *field) gather(size *Size) error {
	for i := range size.Contenders {
		l := &size.Contenders[i]
		in, ok := f.ready[l.ID]
		if !ok {
			continue
		}
		facts, err := in.facts()
		if err != nil {
			return fmt.Errorf("%s: %w", l.ID, err)
		}
		if facts.what != "" {
			l.MemoryPerToken, l.MemoryIs = float64(facts.memory)/float64(f.tokens.all()), facts.what
		}
		l.DiskPerToken = float64(facts.disk) / float64(f.tokens.all())
		l.Version, l.Load = facts.version, facts.load
	}
	return nil
}

// compare measures all contenders in one cell, in turn.
func (f *field) compare(ctx context.Context, cell Cell, chosen []contender, w *workload) ([]Result, error) {
	turns := map[string][]turn{}
	for round := range rounds {
		for _, c := range chosen {
			in, list := f.ready[c.ID], f.sessions[c.ID]
			if in == nil || f.skip(cell, c) != "" {
				continue
			}
			facts, err := in.facts()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.ID, err)
			}
			for _, s := range list {
				if k, ok := s.(interface{ ask(Kind) }); ok {
					k.ask(cell.Kind)
				}
			}
			j := job{sessions: list[:cell.Threads], questions: w, d: f.Duration / rounds / 5}
			if round == 0 { // warm the caches and connections
				if _, err := (Cell{Threads: cell.Threads}).take(ctx, j); err != nil {
					return nil, fmt.Errorf("%s: %w", c.ID, err)
				}
			}
			j.d, j.servers, j.batch = f.Duration/rounds, facts.servers, cell.Batch
			if cell.Flow > 0 {
				j.flow = f.flows[c.ID]
			}
			t, err := cell.take(ctx, j)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.ID, err)
			}
			turns[c.ID] = append(turns[c.ID], t)
		}
	}
	var out []Result
	for _, c := range chosen {
		r := Result{Cell: cell, Contender: c.ID, Skipped: f.skip(cell, c)}
		if r.Skipped == "" && f.ready[c.ID] != nil {
			r.summarize(turns[c.ID], turns[productID], f.clock)
		}
		out = append(out, r)
	}
	return out, nil
}

// skip returns why a contender is not measured in a cell; empty if it is.
func (f *field) skip(cell Cell, c contender) string {
	switch {
	case f.ready[c.ID] == nil:
		return "not installed"
	case c.forgets && (cell.Kind == Revoked || cell.Flow > 0):
		return "accepts it until it expires"
	case cell.Flow > 0 && f.flows[c.ID] == nil:
		return "-"
	case cell.Collect && !c.inProcess, cell.Batch > 0 && c.ID != productID && c.ID != "map":
		return "-"
	}
	return ""
}

// short formats a number as in a flag: 10k, 1M.
func short(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// ParseSize parses a number such as 500, 10k or 1M.
func ParseSize(s string) (int, error) {
	digits, factor := s, 1
	if rest, ok := strings.CutSuffix(s, "k"); ok {
		digits, factor = rest, 1000
	} else if rest, ok := strings.CutSuffix(s, "M"); ok {
		digits, factor = rest, 1_000_000
	}
	n := 0
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' || n > maxTokens {
			return 0, fmt.Errorf("%q is not a number such as 500, 10k or 1M", s)
		}
		n = n*10 + int(digits[i]-'0')
	}
	if digits == "" {
		return 0, fmt.Errorf("%q is not a number such as 500, 10k or 1M", s)
	}
	return n * factor, nil
}
