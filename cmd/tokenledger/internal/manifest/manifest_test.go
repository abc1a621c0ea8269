package manifest_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/manifest"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

var now = time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)

// fakeLedger carries out the requests of a plan on a state, as the ledger would.
type fakeLedger struct {
	t        *testing.T
	state    *manifest.State
	position uint64
	keys     map[string]bool
}

func newFakeLedger(t *testing.T) *fakeLedger {
	return &fakeLedger{t: t, state: &manifest.State{Tokens: map[string][]api.Token{}}, keys: map[string]bool{}}
}

func (w *fakeLedger) account(name string) *api.Account {
	for i := range w.state.Accounts {
		if a := &w.state.Accounts[i]; a.ID == name || strings.EqualFold(a.Login, name) {
			return a
		}
	}
	w.t.Fatalf("no account %s", name)
	return nil
}

func (w *fakeLedger) token(id string) *api.Token {
	for _, list := range w.state.Tokens {
		for i := range list {
			if list[i].ID == id {
				return &list[i]
			}
		}
	}
	w.t.Fatalf("no token %s", id)
	return nil
}

// body is any body that a plan sends.
type body struct {
	Login, Kind, Account, App, Device *string
	Owner, Name, Mail                 *string
	Grants, Scopes                    *[]string
	Inherit                           *bool
	ExpiresAt                         *time.Time       `json:"expires_at"`
	ExpiresIn                         *string          `json:"expires_in"`
	Constraints                       *api.Constraints `json:"constraints"`
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (w *fakeLedger) send(_ *manifest.Step, r client.Request) (*client.Answer, error) {
	w.position++
	if r.Key == "" || w.keys[r.Key] {
		w.t.Fatalf("%s %v: the key %q is not new", r.Method, r.Path, r.Key)
	}
	w.keys[r.Key] = true
	raw, _ := json.Marshal(r.Body)
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		w.t.Fatal(err)
	}
	answer := map[string]any{"position": w.position}
	if r.Path[1] == "accounts" {
		answer["account"] = w.onAccount(r, b)
	} else {
		answer["token"] = w.onToken(r, b)
	}
	raw, err := json.Marshal(answer)
	return &client.Answer{Body: raw}, err
}

func (w *fakeLedger) matches(r client.Request, version uint64) {
	if r.IfMatch != "" && r.IfMatch != fmt.Sprintf("%q", fmt.Sprint(version)) {
		w.t.Fatalf("%s %v: If-Match %s, the version is %d", r.Method, r.Path, r.IfMatch, version)
	}
}

func (w *fakeLedger) onAccount(r client.Request, b body) *api.Account {
	if len(r.Path) == 2 {
		w.state.Accounts = append(w.state.Accounts, api.Account{
			ID: fmt.Sprintf("acc_%d", w.position), Login: *b.Login, Kind: *b.Kind, State: "active",
		})
		r.Path = append(r.Path, *b.Login)
	}
	a := w.account(r.Path[2])
	w.matches(r, a.Version)
	a.Version = w.position
	if b.Owner != nil {
		if a.Owner = ""; *b.Owner != "" {
			a.Owner = w.account(*b.Owner).ID
		}
	}
	set(&a.Name, b.Name)
	set(&a.Mail, b.Mail)
	set(&a.Grants, b.Grants)
	switch r.Path[len(r.Path)-1] {
	case "suspend":
		a.State = "suspended"
	case "resume":
		a.State = "active"
	}
	return a
}

func (w *fakeLedger) onToken(r client.Request, b body) *api.Token {
	if len(r.Path) == 2 {
		if !strings.HasPrefix(*b.Account, "acc_") {
			w.t.Fatalf("a token is created for the account %q, want its ID", *b.Account)
		}
		a := w.account(*b.Account)
		id := fmt.Sprintf("tok_%d", w.position)
		w.state.Tokens[a.ID] = append(w.state.Tokens[a.ID], api.Token{ID: id, Account: a.ID, State: "active"})
		r.Path = append(r.Path, id)
	}
	t := w.token(r.Path[2])
	w.matches(r, t.Version)
	t.Version = w.position
	set(&t.App, b.App)
	set(&t.Device, b.Device)
	if b.Scopes != nil {
		t.Scopes, t.Inherit = *b.Scopes, false
	}
	if b.Inherit != nil && *b.Inherit {
		t.Scopes, t.Inherit = nil, true
	}
	if b.ExpiresIn != nil {
		d, err := time.ParseDuration(*b.ExpiresIn)
		if err != nil || d <= 0 {
			w.t.Fatalf("expires_in %s", *b.ExpiresIn)
		}
		at := now.Add(d)
		t.ExpiresAt = &at
	}
	if b.ExpiresAt != nil {
		t.ExpiresAt = b.ExpiresAt
	}
	if b.Constraints != nil {
		t.Constraints = b.Constraints
	}
	switch r.Path[len(r.Path)-1] {
	case "suspend":
		t.State = "suspended"
	case "resume":
		t.State = "active"
	case "revoke":
		t.State = "revoked"
	}
	return t
}

var scopes = []string{"view:site/1", "view:site/2", "write:site/1", "track:site/*"}

// randomFile returns a file that declares random things of a few names.
func randomFile(rng *rand.Rand) *manifest.File {
	maybe := func() bool { return rng.IntN(2) == 0 }
	some := func() []string {
		list := slices.Clone(scopes)
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list[:1+rng.IntN(len(list))]
	}
	state := func() string { return []string{"", "active", "suspended"}[rng.IntN(3)] }
	f := &manifest.File{}
	// The owners are always there, so that every file has a plan.
	for _, login := range []string{"shop", "till", "anna", "bob"} {
		a := manifest.Account{Login: login, Kind: "service", State: state(), Listed: maybe()}
		if login == "anna" || login == "bob" {
			a.Kind = "user"
		} else if maybe() {
			owner := []string{"anna", "BOB", ""}[rng.IntN(3)]
			a.Owner = &owner
		}
		if maybe() {
			name := []string{"", "A", "B"}[rng.IntN(3)]
			a.Name = &name
		}
		if maybe() {
			grants := some()[1:]
			a.Grants = &grants
		}
		for _, app := range []string{"web", "app", ""} {
			if !a.Listed || maybe() {
				continue
			}
			t := manifest.Token{App: app, State: state(), Inherit: maybe()}
			if !t.Inherit {
				t.Scopes = some()
			}
			if maybe() {
				at := now.Add(time.Duration(1+rng.IntN(3)) * 1500 * time.Millisecond)
				t.ExpiresAt = &at
			}
			if maybe() {
				t.Constraints = &api.Constraints{Rate: rng.IntN(3), HeaderOnly: maybe()}
			}
			a.Tokens = append(a.Tokens, t)
		}
		f.Accounts = append(f.Accounts, a)
	}
	return f
}

// TestPlanGivesWhatIsDeclared applies random files one after the other. Each gives
// the declared state, after which neither it nor an export changes anything.
func TestPlanGivesWhatIsDeclared(t *testing.T) {
	rng := seed.Rand(t)
	w := newFakeLedger(t)
	steps := 0
	for range 300 {
		f := randomFile(rng)
		opt := manifest.Options{Prune: rng.IntN(2) == 0, Now: now}
		plan, err := manifest.Make(f, w.state, opt)
		if err != nil {
			t.Fatal(err)
		}
		inOrder(t, plan)
		// An interruption loses nothing: the rest is planned again.
		stop := rng.IntN(len(plan.Steps) + 1)
		for range 2 {
			part := &manifest.Plan{Steps: plan.Steps[:min(stop, len(plan.Steps))]}
			done, err := part.Carry(w.send)
			if err != nil || done != len(part.Steps) {
				t.Fatalf("%d steps done: %v", done, err)
			}
			steps += done
			if plan, err = manifest.Make(f, w.state, opt); err != nil {
				t.Fatal(err)
			}
			stop = len(plan.Steps)
		}
		if len(plan.Steps) > 0 {
			t.Fatalf("the second plan has %v", plan.Steps[0].Lines())
		}
		declared(t, f, w, opt.Prune)
		text, err := manifest.Export(w.state)
		if err != nil {
			t.Fatal(err)
		}
		exported, err := manifest.Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		again, err := manifest.Make(exported, w.state, manifest.Options{Prune: true, Now: now})
		if err != nil || len(again.Steps) > 0 {
			t.Fatalf("an export changes something: %v, %+v\n%s", err, again, text)
		}
	}
	if steps < 300 {
		t.Errorf("%d steps, want more", steps)
	}
}

// inOrder checks that revocations come first, owners before what they own, and
// accounts before tokens.
func inOrder(t *testing.T, p *manifest.Plan) {
	t.Helper()
	at := map[string]int{}
	for i, s := range p.Steps {
		if s.Action == "create" {
			at[strings.ToLower(s.Kind+" "+s.Name)] = i
		}
		if s.Action == "revoke" && i > 0 && p.Steps[i-1].Action != "revoke" {
			t.Fatalf("%s is revoked after %v", s.Name, p.Steps[i-1].Lines())
		}
	}
	for i, s := range p.Steps {
		if account, ok := at["account "+s.Account]; ok && i < account {
			t.Fatalf("%s %s comes before its account", s.Action, s.Name)
		}
		for _, f := range s.Fields {
			owner, _ := f.New.(string)
			if made, ok := at["account "+strings.ToLower(owner)]; ok && f.Name == "owner" && i < made {
				t.Fatalf("%s %s comes before its owner", s.Action, s.Name)
			}
		}
	}
}

// declared checks that a state has what a file declares.
func declared(t *testing.T, f *manifest.File, w *fakeLedger, prune bool) {
	t.Helper()
	for _, a := range f.Accounts {
		got := w.account(a.Login)
		if a.State != "" && got.State != a.State || a.Name != nil && got.Name != *a.Name ||
			a.Grants != nil && !sameTexts(*a.Grants, got.Grants) {
			t.Fatalf("%s is %+v, declared as %+v", a.Login, got, a)
		}
		if a.Owner != nil && (*a.Owner == "") != (got.Owner == "") {
			t.Fatalf("the owner of %s is %q, declared as %q", a.Login, got.Owner, *a.Owner)
		}
		live := slices.DeleteFunc(slices.Clone(w.state.Tokens[got.ID]), func(x api.Token) bool { return manifest.Ended(&x) })
		if a.Listed && prune && len(live) != len(a.Tokens) {
			t.Fatalf("%s has %d tokens, declared are %d", a.Login, len(live), len(a.Tokens))
		}
		for _, want := range a.Tokens {
			i := slices.IndexFunc(live, func(x api.Token) bool { return x.App == want.App && x.Device == want.Device })
			if i < 0 {
				t.Fatalf("%s has no token %s", a.Login, want.App)
			}
			x := live[i]
			if x.Inherit != want.Inherit || !sameTexts(x.Scopes, want.Scopes) ||
				want.State != "" && x.State != want.State ||
				want.ExpiresAt != nil && !want.ExpiresAt.Equal(*x.ExpiresAt) ||
				want.Constraints != nil && !sameLimits(x.Constraints, want.Constraints) {
				t.Fatalf("%s/%s is %+v, declared as %+v", a.Login, x.App, x, want)
			}
		}
	}
}

// sameLimits compares the constraints that random files have.
func sameLimits(a, b *api.Constraints) bool {
	if a == nil {
		a = &api.Constraints{}
	}
	return a.Rate == b.Rate && a.HeaderOnly == b.HeaderOnly
}

func sameTexts(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// TestMake plans single files on one state.
func TestMake(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("tok_%026d", n) }
	soon := now.Add(time.Hour)
	state := func() *manifest.State {
		return &manifest.State{
			Accounts: []api.Account{
				{ID: "acc_1", Login: "shop", Kind: "service", State: "active", Owner: "acc_2", Grants: []string{"view:site/1", "view:site/2"}, Version: 5},
				{ID: "acc_2", Login: "anna", Kind: "user", State: "active", Version: 6},
				{ID: "acc_3", Login: "seen", Kind: "service", State: "active", Owner: "acc_unseen", Version: 4},
			},
			Tokens: map[string][]api.Token{"acc_1": {
				{ID: id(1), App: "web", State: "active", Scopes: []string{"view:site/1"}, ExpiresAt: &soon, Version: 7},
				{ID: id(2), App: "two", State: "active", Scopes: []string{"view:site/1"}, Version: 8},
				{ID: id(3), App: "two", State: "account suspended", StoppedBy: "acc_2", Scopes: []string{"view:site/1"}, Version: 9},
				{ID: id(4), App: "old", State: "revoked", Scopes: []string{"view:site/1"}, Version: 10},
				{ID: id(5), App: "self", State: "active", Inherit: true, Version: 11},
			}},
			Self: id(5),
		}
	}
	for name, test := range map[string]struct {
		file  string
		prune bool
		self  bool
		want  []string // heads, or mistakes
	}{
		"nothing":      {file: "accounts: [{login: shop, kind: service}]"},
		"json":         {file: `{"accounts": [{"login": "SHOP", "kind": "service", "owner": "Anna"}]}`},
		"no owner":     {file: `accounts: [{login: shop, kind: service, owner: ""}]`, want: []string{"~ account shop: edit"}},
		"kind":         {file: "accounts: [{login: shop, kind: user}]", want: []string{"is a service account"}},
		"owner":        {file: "accounts: [{login: new, kind: service, owner: bob}]", want: []string{"neither in the file nor in the ledger"}},
		"same owner":   {file: "accounts: [{login: seen, kind: service, owner: acc_unseen}]"},
		"not a user":   {file: "accounts: [{login: new, kind: service, owner: shop}]", want: []string{"is not a user"}},
		"owner first":  {file: "accounts: [{login: new, kind: service, owner: bob}, {login: bob, kind: user}]", want: []string{"+ account bob: create", "+ account new: create"}},
		"ambiguous":    {file: "accounts: [{login: shop, kind: service, tokens: [{app: two, inherit: true}]}]", want: []string{"2 tokens are named shop/two/"}},
		"by id":        {file: "accounts: [{login: shop, kind: service, tokens: [{id: " + id(3) + ", app: three, scopes: [view:site/1]}]}]", want: []string{"~ token shop/two/ (" + id(3) + "): edit"}},
		"resume":       {file: "accounts: [{login: shop, kind: service, tokens: [{id: " + id(3) + ", app: two, state: active, scopes: [view:site/1]}]}]", want: []string{"~ token shop/two/ (" + id(3) + "): resume"}},
		"unknown id":   {file: "accounts: [{login: shop, kind: service, tokens: [{id: " + id(9) + ", inherit: true}]}]", want: []string{"has no token " + id(9)}},
		"ended id":     {file: "accounts: [{login: shop, kind: service, tokens: [{id: " + id(4) + ", inherit: true}]}]", want: []string{"is revoked"}},
		"again":        {file: "accounts: [{login: shop, kind: service, tokens: [{app: old, inherit: true}]}]", want: []string{"+ token shop/old/: create"}},
		"past":         {file: "accounts: [{login: shop, kind: service, tokens: [{app: web, scopes: [view:site/1], expires_at: 2030-01-01}]}]", want: []string{"is in the past"}},
		"past and new": {file: "accounts: [{login: shop, kind: service, tokens: [{app: new, scopes: [view:site/1], expires_at: 2030-01-01}]}]"},
		"no tokens":    {file: "accounts: [{login: shop, kind: service}]", prune: true},
		"prune": {
			file: "accounts: [{login: shop, kind: service, tokens: [{id: " + id(2) + ", app: two, scopes: [view:site/1]}]}]", prune: true,
			want: []string{"- token shop/web/ (" + id(1) + "): revoke", "- token shop/two/ (" + id(3) + "): revoke"},
		},
		"prune self": {
			file:  "accounts: [{login: shop, kind: service, grants: [], tokens: [{app: web, inherit: true}]}]",
			prune: true, self: true,
			want: []string{
				"- token shop/two/ (" + id(2) + "): revoke", "- token shop/two/ (" + id(3) + "): revoke",
				"~ account shop: set grants", "~ token shop/web/ (" + id(1) + "): edit", "- token shop/self/ (" + id(5) + "): revoke",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := manifest.Parse([]byte(test.file))
			if err != nil {
				t.Fatal(err)
			}
			plan, err := manifest.Make(f, state(), manifest.Options{Prune: test.prune, IncludeSelf: test.self, Now: now})
			var got []string
			if err != nil {
				if len(test.want) != 1 || !strings.Contains(err.Error(), test.want[0]) {
					t.Fatalf("%v, want %q", err, test.want)
				}
				return
			}
			for i := range plan.Steps {
				got = append(got, plan.Steps[i].Lines()[0])
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			if (name == "prune") != plan.Spared {
				t.Errorf("spared is %v", plan.Spared)
			}
		})
	}
}

// TestParseMistakes names every mistake with its line.
func TestParseMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"empty":     {"", []string{"the file is empty"}},
		"syntax":    {"accounts: [", []string{"line 1: did not find expected"}},
		"two":       {"accounts: []\n---\naccounts: []\n", []string{"line 2: a second document"}},
		"no key":    {"{}", []string{"line 1: the file has no key accounts"}},
		"not a map": {"- a", []string{"line 1: the file must be a mapping"}},
		"null":      {"accounts:\n", []string{"accounts must be a list"}},
		"root":      {"accounts: [{login: Root, kind: user}]", []string{"the account root is not managed"}},
		"account": {"accounts:\n- login: a/b\n  kind: robot\n  grants: [x:y]\n  grants: []\n  colour: red\n- kind: user\n- login: a\n", []string{
			"line 2: \"a/b\" cannot be a login", "line 3: kind must be user or service", "line 4: grants: bad scope",
			"line 5: grants is given twice", "line 6: an account cannot have the key \"colour\"",
			"line 7: the account has no login", "line 8: the account a has no kind",
		}},
		"tokens": {"accounts:\n- login: a\n  kind: user\n  owner: b\n  tokens:\n  - app: x\n  - app: y\n    inherit: true\n    scopes: [superuser]\n" +
			"  - app: x\n    inherit: yes please\n  - id: tok_1\n    inherit: true\n    expires_in: never\n    expires_at: 2w\n" +
			"  - app: z\n    inherit: true\n    constraints: {cidrs: [1.2.3.4], rate: 0, origins: [example.org], x: y}\n", []string{
			"line 4: a user has no owner", "line 6: the token has no scopes", "line 7: the token has scopes and inherits",
			"line 10: the token a/x/ is declared in line 6 too", "line 11: inherit must be true or false",
			"line 12: id: ", "line 14: expires_in must be", "line 15: expires_at must be an exact time",
			"line 18: constraints cannot have the key \"x\"", "line 18: rate must be", "is not a network", "is not an origin",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := manifest.Parse([]byte(test.file))
			if err == nil {
				t.Fatal("no mistake")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in:\n%s", want, strings.ReplaceAll(err.Error(), "; ", "\n"))
				}
			}
		})
	}
}

// TestScopes lists the scopes of a file with their lines, aliases included.
func TestScopes(t *testing.T) {
	f, err := manifest.Parse([]byte("accounts:\n- login: a\n  kind: user\n  grants: &all\n  - &one view:site/2\n  - view:site/1\n" +
		"- login: b\n  kind: user\n  grants: *all\n  tokens:\n  - scopes: [*one]\n"))
	if err != nil {
		t.Fatal(err)
	}
	list, lines := f.Scopes()
	if want := []string{"view:site/1", "view:site/2"}; !slices.Equal(list, want) {
		t.Errorf("%q, want %q", list, want)
	}
	if lines["view:site/2"] != 5 || lines["view:site/1"] != 6 {
		t.Errorf("the lines are %v", lines)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("accounts: [{login: a, kind: user, tokens: [{app: x, scopes: [superuser]}]}]"))
	f.Add([]byte("accounts: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := manifest.Parse(text)
		if err != nil {
			return
		}
		for _, a := range file.Accounts {
			for _, x := range a.Tokens {
				if _, err := events.ParseScopes(x.Scopes); err != nil {
					t.Errorf("%q has bad scopes: %v", text, err)
				}
			}
		}
	})
}
