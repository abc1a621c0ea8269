package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/ops/bench"
)

// The files of a report.
const (
	fileReport = "report.md"
	fileChart  = "cost.svg"
)

func newBenchCmd(e *env) *cobra.Command {
	sizes, threads, rivals := text("10k,1M"), text("1,2"), text("all")
	duration := span(2 * time.Second)
	var out, scratch string
	var seed uint64
	c := &cobra.Command{
		Use: "bench", Short: "Measure what a check costs here, beside what else could be used", Args: takes(),
		Long: `Measures what a check costs on this machine, side by side with what could be
used instead: a Go map, Badger alone, JWT, Redis, PostgreSQL, introspection over
HTTP. All answer the same questions about the same tokens, by turns. PostgreSQL
and Redis are the system's packages; they are started for this in a temporary
folder, on Unix sockets alone, and stopped afterwards.

A million tokens take about a minute to fill in, and about 1 GB on disk; ten
million about seven minutes and 8 GB. The figures are good where nothing else runs.`,
		Example: `  tokenledger bench --tokens 100k --duration 1s
  tokenledger bench --tokens 10k,1M,10M --out ops/bench`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg := bench.Config{
				Duration: time.Duration(duration), Rivals: splitList(string(rivals)), Seed: seed, Dir: scratch, Progress: e.stderr,
			}
			if rivals == "all" {
				cfg.Rivals = bench.Rivals()
			}
			for _, s := range splitList(string(sizes)) {
				n, err := bench.ParseSize(s)
				if err != nil {
					return usagef(c, "--tokens: %s", err)
				}
				cfg.Tokens = append(cfg.Tokens, n)
			}
			for _, s := range splitList(string(threads)) {
				n, err := strconv.Atoi(s)
				if err != nil {
					return usagef(c, "--threads: %s is not a number", quote(s))
				}
				cfg.Threads = append(cfg.Threads, n)
			}
			if err := cfg.Validate(); err != nil {
				return usagef(c, "%s", plain(err))
			}
			if out != "" { // what cannot be written is said before, not after
				if err := os.MkdirAll(out, 0o755); err != nil {
					return err
				}
			}
			r, err := bench.Run(c.Context(), cfg)
			if err != nil {
				return err
			}
			if out != "" {
				if err := writeReport(out, r); err != nil {
					return err
				}
				e.note("wrote %s and %s", filepath.Join(out, fileReport), filepath.Join(out, fileChart))
			}
			body, err := encode(r)
			if err != nil {
				return err
			}
			return e.show(body, func() { e.stdout.err = errors.Join(e.stdout.err, r.WriteMarkdown(e.stdout)) })
		},
	}
	flags := c.Flags()
	flags.Var(&sizes, "tokens", "numbers of tokens, as in 10k,1M,10M")
	flags.Var(&threads, "threads", "how many ask at once; the comparison is of the first")
	flags.Var(&duration, "duration", "how long each contender is measured in each case")
	flags.Var(&rivals, "rivals", "what to compare with: all, or some of "+strings.Join(bench.Rivals(), ",")+"; empty for none")
	flags.StringVar(&out, "out", "", "folder to write "+fileReport+" and "+fileChart+" to")
	flags.StringVar(&scratch, "scratch", "", "folder for temporary files, by default the system's")
	flags.Uint64Var(&seed, "seed", 1, "what the tokens and the questions follow from")
	e.completeFlag(c, "rivals", oneOf(append([]string{"all"}, bench.Rivals()...)...))
	return c
}

// writeReport writes a report's files.
func writeReport(dir string, r *bench.Report) error {
	for name, write := range map[string]func(io.Writer) error{fileReport: r.WriteMarkdown, fileChart: r.WriteChart} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
