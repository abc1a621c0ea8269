// Command tokenledger-bench measures the cost of a check on this machine, and
// compares it with alternatives. It is a separate program, so that the product has
// no PostgreSQL client and no JWT library.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/ops/bench"
)

// The files of a report.
const (
	fileReport = "report.md"
	fileChart  = "cost.svg"
)

// The exit codes, the same as those of tokenledger.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

const usage = `Measures what a check costs on this machine, side by side with what could be
used instead: a Go map, Badger alone, JWT, Redis, PostgreSQL, introspection over
HTTP. All answer the same questions about the same tokens, in turns. PostgreSQL
and Redis come from the system's packages. The program starts them in a
temporary folder, on Unix sockets only, and stops them at the end.

Filling in a million tokens takes about a minute and 1 GB of disk; ten million
take about seven minutes and 8 GB. Run it on a machine with nothing else to do.

Usage:
  tokenledger-bench [flags]

Examples:
  tokenledger-bench --tokens 100k --duration 1s
  tokenledger-bench --tokens 10k,1M,10M --out ops/bench
  tokenledger-bench --quick --tokens 1M

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = io.WriteString(stdout, usage+o.flags.FlagUsages())
		return exitOK
	case err != nil:
		complain(stderr, err)
		return exitUsage
	}
	o.config.Progress = stderr
	if err := o.measure(ctx, stdout, stderr); err != nil {
		complain(stderr, err)
		return exitError
	}
	return exitOK
}

func complain(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// options are the parsed flags.
type options struct {
	flags  *pflag.FlagSet
	config bench.Config
	out    string // folder of the report, if any
	json   bool
	quick  bool
}

// parse parses the flags. An error is a usage error; nothing was measured or
// written.
func parse(args []string) (options, error) {
	var o options
	o.flags = pflag.NewFlagSet("tokenledger-bench", pflag.ContinueOnError)
	o.flags.SortFlags = false
	o.flags.Usage = func() {} // run prints it
	tokens := o.flags.StringSlice("tokens", []string{"10k", "1M"}, "numbers of tokens, as in 10k,1M,10M")
	threads := o.flags.StringSlice("threads", []string{"1", "2"},
		"numbers of threads that ask at once; the comparison uses the first")
	o.flags.DurationVar(&o.config.Duration, "duration", 2*time.Second, "how long each contender is measured in each case")
	rivals := o.flags.String("rivals", "all",
		"what to compare with: all, or some of "+strings.Join(bench.Rivals(), ",")+"; empty for none")
	o.flags.StringVar(&o.out, "out", "", "folder to write "+fileReport+" and "+fileChart+" to")
	o.flags.StringVar(&o.config.Dir, "scratch", "", "folder for temporary files (default: the system's)")
	o.flags.Uint64Var(&o.config.Seed, "seed", 1, "seed of the random tokens and questions")
	o.flags.BoolVar(&o.quick, "quick", false,
		"compare with a Go map alone, within a minute for 1M, and print one JSON object; --tokens names one size")
	output := o.flags.StringP("output", "o", "table", "form of output: table or json")
	if err := o.flags.Parse(args); err != nil {
		return o, err
	}
	if rest := o.flags.Args(); len(rest) > 0 {
		return o, fmt.Errorf("tokenledger-bench does not take %q", rest[0])
	}
	for _, s := range *tokens {
		n, err := bench.ParseSize(strings.TrimSpace(s))
		if err != nil {
			return o, fmt.Errorf("--tokens: %w", err)
		}
		o.config.Tokens = append(o.config.Tokens, n)
	}
	for _, s := range *threads {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			return o, fmt.Errorf("--threads: %q is not a number", s)
		}
		o.config.Threads = append(o.config.Threads, n)
	}
	switch *rivals {
	case "":
	case "all":
		o.config.Rivals = bench.Rivals()
	default:
		for s := range strings.SplitSeq(*rivals, ",") {
			o.config.Rivals = append(o.config.Rivals, strings.TrimSpace(s))
		}
	}
	switch *output {
	case "table":
	case "json":
		o.json = true
	default:
		return o, fmt.Errorf("--output: %q is neither table nor json", *output)
	}
	if o.quick && len(o.config.Tokens) != 1 {
		return o, errors.New("--quick: --tokens must name one size")
	}
	return o, o.config.Validate()
}

// measure measures and writes the report.
func (o *options) measure(ctx context.Context, stdout, stderr io.Writer) error {
	if o.out != "" { // a folder that cannot be written fails now, not after the run
		if err := os.MkdirAll(o.out, 0o755); err != nil {
			return err
		}
	}
	if o.quick {
		q, err := bench.MeasureQuickly(ctx, o.config.Tokens[0], o.config.Dir, stderr)
		if err != nil {
			return err
		}
		return json.NewEncoder(stdout).Encode(q)
	}
	r, err := bench.Run(ctx, o.config)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := writeReport(o.out, r); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(stderr, "wrote %s and %s\n", filepath.Join(o.out, fileReport), filepath.Join(o.out, fileChart))
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return r.WriteMarkdown(stdout)
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
