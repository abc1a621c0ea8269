package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tokenledger": main})
}

// TestScripts runs the program as its users do: each script against a node of
// its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would wait a second at each exit
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("TOKENLEDGER_DATA", filepath.Join(env.WorkDir, "data"))
			for _, part := range []string{"API", "VERIFY", "METRICS"} {
				env.Setenv("TOKENLEDGER_"+part+"_ADDR", "127.0.0.1:0")
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("there is no condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "waitfile": cmdWaitFile, "waitfor": cmdWaitFor, "waitmetric": cmdWaitMetric,
			"waitready": cmdWaitReady,
			"connect":   cmdConnect,
			"json":      cmdJSON, "totp": cmdTOTP,
			"prefix": cmdPrefix, "replace": cmdReplace,
		},
	})
}

// patience bounds what a test waits for.
const patience = wait.Limit

// cmdExits runs a program that has to exit with a code:
//
//	exits 2 tokenledger token show
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdPrefix sets a variable to the first characters of a text:
//
//	prefix BEGINNING $ID 20
func cmdPrefix(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: prefix VARIABLE TEXT LENGTH")
	}
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Setenv(args[0], args[1][:n])
}

// cmdReplace sets a variable to a text in which a part is replaced:
//
//	replace URL $NATS nats:// http://
func cmdReplace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: replace VARIABLE TEXT OLD NEW")
	}
	ts.Setenv(args[0], strings.Replace(args[1], args[2], args[3], 1))
}

// cmdTOTP writes the code that an app shows now into a file:
//
//	totp $SECRET code
func cmdTOTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: totp SECRET FILE")
	}
	code, err := totp.GenerateCode(args[0], time.Now())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(code+"\n"), 0o600))
}

// cmdWaitFile waits until a file is there and, where its name says that it is
// JSON, whole:
//
//	waitfile data/run.json
func cmdWaitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile FILE")
	}
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err == nil && (filepath.Ext(path) != ".json" || json.Valid(b)) {
			return
		}
	}
	ts.Fatalf("%s does not appear", args[0])
}

// cmdWaitReady waits until a node that was started on a folder answers checks.
// Until then, commands to it may print what they wait for:
//
//	waitready data
func cmdWaitReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitready FOLDER")
	}
	cmdWaitFile(ts, false, []string{filepath.Join(args[0], "run.json")})
	cmdWaitMetric(ts, false, []string{args[0], "tokenledger_ready 1"})
}

// cmdWaitFor runs a program until its standard output matches:
//
//	waitfor 'main +serving' tokenledger nodes
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor REGEXP PROGRAM [ARG...]")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("the output does not come to match %s", args[0])
}

// cmdWaitMetric waits until a node's metrics hold a line:
//
//	waitmetric data 'tokenledger_ready 1'
func cmdWaitMetric(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitmetric FOLDER LINE")
	}
	got := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got = metricsOf(ts.MkAbs(args[0]))
		if strings.Contains(got, "\n"+args[1]+"\n") {
			return
		}
	}
	ts.Logf("%s", got)
	ts.Fatalf("the metrics do not come to have %s", args[1])
}

// cmdConnect opens connections to a listener of a node, and keeps them until the
// script ends:
//
//	connect data verify 400
func cmdConnect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: connect FOLDER LISTENER COUNT")
	}
	var at map[string]any
	b, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), "run.json"))
	ts.Check(err)
	ts.Check(json.Unmarshal(b, &at))
	count, err := strconv.Atoi(args[2])
	ts.Check(err)
	_, address, _ := strings.Cut(at[args[1]].(string), "://")
	for range count {
		c, err := net.Dial("tcp", address)
		ts.Check(err)
		ts.Defer(func() { _ = c.Close() })
	}
}

// metricsOf returns the metrics of the node on a data folder, empty if it does not
// answer.
func metricsOf(data string) string {
	var at node.Addresses
	b, err := os.ReadFile(filepath.Join(data, "run.json"))
	if err != nil || json.Unmarshal(b, &at) != nil {
		return ""
	}
	// The certificate may have been replaced since run.json was written.
	c := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	resp, err := c.Get(at.Metrics + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // cut short, it lacks the line
	return string(text)
}

// cmdJSON sets a variable to a value of the JSON in standard output or a file,
// or compares the value with one that is given:
//
//	json ID stdout token.id
//	json = stdout items.0.state active
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 && (len(args) != 4 || args[0] != "=") || neg && len(args) != 4 {
		ts.Fatalf("usage: json VARIABLE FILE PATH, or [!] json = FILE PATH VALUE")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &v))
	for name := range strings.SplitSeq(args[2], ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			ts.Check(err)
			if v = nil; i < len(in) {
				v = in[i]
			}
		default:
			v = nil
		}
	}
	got, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		ts.Check(err)
		got = string(b)
	}
	if len(args) == 3 {
		if v == nil {
			ts.Fatalf("%s has no %s", args[1], args[2])
		}
		ts.Setenv(args[0], got)
		return
	}
	if (got == args[3]) == neg {
		ts.Fatalf("%s is %s", args[2], got)
	}
}
