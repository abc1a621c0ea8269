package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// small is a run of some seconds.
func small(t *testing.T, rivals ...string) Config {
	return Config{
		Tokens: []int{1000}, Threads: []int{1, 2}, Duration: 20 * time.Millisecond, Rivals: rivals, Seed: 5,
		Dir: folder(t), Progress: t.Output(),
	}
}

// folder returns a folder with a path that leaves room for a Unix socket's.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("the run left %v behind (%v)", left, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestRun runs everything that is installed, for a moment in each case.
func TestRun(t *testing.T) {
	cfg := small(t, Rivals()...)
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Sizes) != 1 || len(r.Sizes[0].Contenders) != len(contenders) {
		t.Fatalf("%d sizes, want 1 with %d contenders", len(r.Sizes), len(contenders))
	}
	s := &r.Sizes[0]
	for _, c := range s.Contenders {
		if c.Missing != "" {
			t.Logf("******** NOT TESTED: %s: %s ********", c.ID, c.Missing)
			continue
		}
		for _, cell := range cfg.cells() {
			got := s.result(cell, c.ID)
			if got == nil {
				t.Errorf("%s, %s: no result", c.ID, cell)
				continue
			}
			if got.Skipped != "" {
				continue
			}
			if got.Mean <= 0 || got.PerSecond <= 0 || got.Ratio <= 0 || got.Singles == 0 ||
				got.P99 < got.P50 || got.P999 < got.P99 {
				t.Errorf("%s, %s: %+v", c.ID, cell, *got)
			}
			if cell.Flow > 0 && got.Flowed <= 0 {
				t.Errorf("%s, %s: no revocation was applied while checks were measured", c.ID, cell)
			}
		}
	}
	for _, cell := range cfg.cells() {
		if got := s.result(cell, productID); got == nil || got.Skipped != "" {
			t.Errorf("tokenledger has no figures for %s", cell)
		}
	}
	if got := s.result(Cell{Kind: Revoked, Spread: Uniform, Threads: 1}, "jwt-eddsa"); got == nil || got.Skipped == "" {
		t.Error("a JWT that was revoked has figures, and is good until it expires")
	}
	if len(s.HTTP) != 9 {
		t.Errorf("over HTTP: %d results, want 9", len(s.HTTP))
	}
	for _, h := range s.HTTP {
		if h.PerSecond <= 0 || h.Alone <= 0 || h.Share <= 0 || h.P50 <= 0 || h.P99 < h.P50 {
			t.Errorf("over HTTP: %+v", h)
		}
	}
	var b strings.Builder
	if err := errors.Join(r.WriteMarkdown(&b), r.WriteChart(&b)); err != nil {
		t.Error(err)
	}
}

// TestRunIsInterrupted: servers are gone and files deleted also when a run is
// stopped in the middle.
func TestRunIsInterrupted(t *testing.T) {
	cfg := small(t, "redis", "postgres")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Progress = seen{"hit, uniform", cancel}
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want that it was canceled", err)
	}
	for _, pid := range family(os.Getpid())[1:] {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if cmd := string(b); err == nil && (strings.Contains(cmd, "postgres") || strings.Contains(cmd, "redis")) {
			t.Errorf("process %d still runs: %q", pid, b)
		}
	}
}

// seen calls f when a text is written.
type seen struct {
	text string
	f    func()
}

func (s seen) Write(b []byte) (int, error) {
	if strings.Contains(string(b), s.text) {
		s.f()
	}
	return len(b), nil
}

func TestValidate(t *testing.T) {
	good := Config{Tokens: []int{1000}, Threads: []int{1}, Duration: time.Second}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"tokens: name":    func(c *Config) { c.Tokens = nil },
		"tokens: 15 is":   func(c *Config) { c.Tokens = []int{1000, 15} },
		"threads: name":   func(c *Config) { c.Threads = nil },
		"threads: 0 is":   func(c *Config) { c.Threads = []int{0} },
		"duration: 0s":    func(c *Config) { c.Duration = 0 },
		`rival "mysql"; `: func(c *Config) { c.Rivals = []string{"redis", "mysql"} },
		`"tokenledger"; `: func(c *Config) { c.Rivals = []string{productID} },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Validate = %v, want %q", err, name)
		}
		if _, err := Run(t.Context(), bad); err == nil {
			t.Errorf("%s: Run does not refuse it", name)
		}
	}
}

// wrong is a checker that says yes to everything.
type wrong struct{}

func (wrong) check(query) (bool, error) { return true, nil }
func (wrong) close() error              { return nil }

// TestWrongAnswers: an answer that is wrong ends the measurement, in either half.
func TestWrongAnswers(t *testing.T) {
	p := &population{seed: 1, size: 100}
	for _, kind := range []Kind{Miss, Garbage, Revoked} {
		w, err := newWorkload(p, kind, Uniform, 100)
		if err != nil {
			t.Fatal(err)
		}
		j := job{sessions: []checker{wrong{}, wrong{}}, questions: w, d: time.Millisecond}
		if _, err := (Cell{Kind: kind, Threads: 2}).take(t.Context(), j); !errors.Is(err, errWrong) {
			t.Errorf("%s: %v, want %v", kind, err, errWrong)
		}
	}
}

// TestNotInstalled: what is not there is in the report.
func TestNotInstalled(t *testing.T) {
	const remedy = "apt-get install redis-server"
	if why, is := missing(&notInstalled{"redis-server", "redis-server"}); !is || !strings.Contains(why, remedy) {
		t.Errorf("%q, %t", why, is)
	}
	if _, is := missing(errors.New("another")); is {
		t.Error("any error counts as not installed")
	}
	t.Setenv("PATH", t.TempDir())
	cfg := small(t, "redis")
	cfg.Threads = []int{1}
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.WriteMarkdown(&b); err != nil || !strings.Contains(b.String(), "not installed: no redis-server here") {
		t.Errorf("the report does not say that Redis is not installed (%v):\n%s", err, &b)
	}
	if !slices.ContainsFunc(r.Sizes[0].Contenders, func(c Contender) bool { return c.ID == "redis" && c.Missing != "" }) {
		t.Error("Redis is not among the contenders")
	}
}

// TestMeasureQuickly: the quick measurement has all of its figures, and leaves
// nothing behind.
func TestMeasureQuickly(t *testing.T) {
	q, err := MeasureQuickly(t.Context(), 1000, folder(t), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if q.Tokens != 1000 || q.HitRatio <= 0 || q.BatchRatio <= 0 || q.Allocs != 0 || q.BytesPerToken < 64 {
		t.Errorf("%+v", q)
	}
	if _, err := MeasureQuickly(t.Context(), 15, folder(t), t.Output()); err == nil {
		t.Error("15 tokens are not refused")
	}
}
