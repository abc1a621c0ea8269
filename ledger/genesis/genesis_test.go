package genesis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The states that a ledger can report.
var (
	unknown   = Report{}                            // it has known no log, and its store is open
	fresh     = Report{Empty: true}                 // it has known no log, and its disk is empty
	beginning = Report{Epoch: "e", Beginning: true} // it has begun to create the log
	keeps     = Report{Epoch: "e", Open: true}      // it has a copy
	lost      = Report{Epoch: "e", Empty: true}     // it has known the log, and has no copy
	silent    = Report{Name: "it does not answer"}  // stands for no answer
	states    = []Report{unknown, fresh, beginning, keeps, lost, silent}
)

// answersOf names the ledgers a, b, c and so on.
func answersOf(reports ...Report) (answers map[string]Report, members []string) {
	answers = map[string]Report{}
	for i, r := range reports {
		name := string(rune('a' + i))
		members = append(members, name)
		if r.Name == "" {
			r.Name = name
			answers[name] = r
		}
	}
	return answers, members
}

func TestDecideCreate(t *testing.T) {
	for _, tt := range []struct {
		name    string
		own     string
		reports []Report
		want    Kind
		detail  string // who is missing, who creates, or what the error says
	}{
		{"alone", "a", []Report{unknown}, Create, ""},
		{"all are there, and it is the first", "a", []Report{unknown, unknown, unknown}, Create, ""},
		{"all are there, and it is not the first", "b", []Report{unknown, unknown, unknown}, WaitForCreator, "a"},
		{"one is missing", "a", []Report{unknown, silent, unknown}, WaitForLedgers, "b"},
		{"two are missing", "a", []Report{unknown, silent, silent}, WaitForLedgers, "b,c"},
		{"it has begun", "b", []Report{unknown, beginning, unknown}, Create, ""},
		{"another has begun", "a", []Report{unknown, beginning, unknown}, WaitForCreator, "b"},
		{"two have begun", "c", []Report{unknown, beginning, beginning}, WaitForCreator, "b"},
		{"it has begun, and one is missing", "b", []Report{unknown, beginning, silent}, WaitForLedgers, "c"},
		{"one has known a log", "a", []Report{unknown, unknown, keeps}, Gone, "ledger c has known it (epoch e)"},
		{"one has known a log, and one is missing", "a", []Report{unknown, silent, lost}, Gone, "ledger c"},
		{"one has known a log that another begins", "a", []Report{unknown, beginning, keeps}, Gone, "ledger c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, members := answersOf(tt.reports...)
			check(t, DecideCreate(tt.own, answers, members), tt.want, tt.detail)
		})
	}
}

func TestDecideFill(t *testing.T) {
	for _, tt := range []struct {
		name    string
		reports []Report // a's first: it is the one whose store is empty
		agreed  bool
		want    Kind
		detail  string
	}{
		{"no ledger has known a log", []Report{fresh, fresh, fresh}, false, Open, ""},
		{"one is creating the log", []Report{fresh, beginning, fresh}, false, Open, ""},
		{"one is missing", []Report{fresh, fresh, silent}, false, WaitForLedgers, "c"},
		{"most have a copy", []Report{fresh, keeps, keeps}, true, Fill, "b,c"},
		{"most have a copy, and have not agreed", []Report{fresh, keeps, keeps}, false, WaitForAgreement, ""},
		{"most have a copy, and one is missing", []Report{lost, keeps, keeps, keeps, silent}, true, Fill, "b,c,d"},
		{"two of five have a copy", []Report{lost, keeps, keeps, lost, lost}, true, Gone, "only b, c has a copy"},
		{"one has a copy", []Report{lost, keeps, lost}, true, Gone, "of 3 ledgers only b has a copy"},
		{"one has a copy, and one is missing", []Report{lost, keeps, silent}, true, WaitForLedgers, "c"},
		{"none has a copy of a log that was known", []Report{lost, lost, fresh}, true, Gone, "a, b had one"},
		{"only another has known a log", []Report{fresh, lost, fresh}, true, Gone, "b had one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, members := answersOf(tt.reports...)
			check(t, DecideFill(answers, members, tt.agreed), tt.want, tt.detail)
		})
	}
}

func check(t *testing.T, d Decision, want Kind, detail string) {
	t.Helper()
	if d.Kind != want || (d.Kind == Gone) != errors.Is(d.Err, ErrLogGone) {
		t.Fatalf("decided %+v, want kind %d", d, want)
	}
	got := d.Creator + strings.Join(d.Missing, ",") + strings.Join(d.From, ",")
	if d.Err != nil {
		got = d.Err.Error()
		if !strings.Contains(got, "restore") {
			t.Errorf("%q does not say what to do", got)
		}
	}
	if !strings.Contains(got, detail) || detail == "" && got != "" {
		t.Errorf("decided %+v, want %q", d, detail)
	}
}

// TestNothingIsForgotten tries every state of three ledgers. A log that one of
// them has known is never created again. At most one ledger creates it. An
// empty store is opened without a copy only if all say that there was no log.
func TestNothingIsForgotten(t *testing.T) {
	tried := 0
	for _, a := range states {
		for _, b := range states {
			for _, c := range states {
				tried++
				reports := []Report{a, b, c}
				answers, members := answersOf(reports...)
				what := fmt.Sprintf("%+v", reports)
				known := slices.ContainsFunc(reports, func(r Report) bool { return r.Name == "" && r.Knows() })
				all := len(answers) == 3
				creators := 0
				for name := range answers {
					d := DecideCreate(name, answers, members)
					if d.Kind == Create {
						creators++
						if known || !all {
							t.Errorf("%s creates the log: %s", name, what)
						}
					}
					if known != (d.Kind == Gone) {
						t.Errorf("a log that was known: %t, and %+v: %s", known, d, what)
					}
				}
				if all && !known && creators != 1 {
					t.Errorf("%d ledgers create the log: %s", creators, what)
				}
				for _, agreed := range []bool{false, true} {
					d := DecideFill(answers, members, agreed)
					if d.Kind == Open && (known || !all) {
						t.Errorf("an empty store is opened: %s", what)
					}
					if d.Kind == Fill && (len(d.From) < 2 || !agreed) {
						t.Errorf("a copy is taken from %v, agreed %t: %s", d.From, agreed, what)
					}
				}
			}
		}
	}
	if tried != 216 {
		t.Errorf("%d states were tried, want 216", tried)
	}
}
