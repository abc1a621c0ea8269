package eventstest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Run is a random history, and the records in it.
type Run struct {
	Seed     uint64
	Epoch    string
	Messages []events.Message

	Tokens   []events.TokenID
	Accounts []events.AccountID
	Secrets  []events.Secret // of tokens, without duplicates
	Digests  []events.Digest // of the secrets, in the same order
	Keys     []events.CommandKey
	End      time.Time // of the last event
}

// String names the run, for failure messages.
func (r *Run) String() string {
	return fmt.Sprintf("eventstest.History(%d, %d)", r.Seed, len(r.Messages))
}

// History returns n events that a ledger can write, with all kinds of events,
// on a few accounts and active tokens at a time. It includes the corner cases:
//
//   - Two tokens get the same secret.
//   - A token rotates twice within its grace period, or to a secret that it had.
//   - A suspended record is suspended again, rotated and edited.
//   - A token is created for an account that is suspended or just erased.
//   - Tokens end by time and by position.
//   - The writers' clocks go back.
//   - Tokens expire in 1970, now, and after the last year that an index can store.
//   - The actor has ended, or changed after the decision, so that the event is
//     void.
func History(seed uint64, n int) *Run {
	h := &historian{Log: NewLog(seed), run: &Run{Seed: seed}}
	for len(h.Messages) < n {
		h.step()
	}
	h.run.Epoch, h.run.Messages, h.run.End = h.Epoch(), h.Messages, h.now
	return h.run
}

// historian writes a history. It remembers only the state that it needs to
// avoid inconsistent events.
type historian struct {
	*Log
	run      *Run
	state    State
	sessions []events.Actor     // people who signed in
	alive    []events.TokenID   // not revoked
	accounts []events.AccountID // not erased
	erased   []events.AccountID
}

// Limits at a time, so that a history has many events on few records.
const (
	maxAccounts = 6
	maxAlive    = 10
)

func (h *historian) step() {
	h.tick()
	if len(h.accounts) == 0 {
		h.createAccount()
		return
	}
	type choice struct {
		weight int
		take   func()
	}
	choices := []choice{
		{3, h.changePolicy},
		{4, h.issueReceipt},
		{14, h.changeAccount},
	}
	if len(h.accounts) < maxAccounts {
		choices = append(choices, choice{5, h.createAccount})
	}
	if len(h.alive) < maxAlive {
		choices = append(choices, choice{18, h.createToken})
	}
	if len(h.alive) > 0 {
		choices = append(choices, choice{45, h.changeToken})
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	roll := h.rng.IntN(total)
	for _, c := range choices {
		if roll -= c.weight; roll < 0 {
			c.take()
			return
		}
	}
}

// tick moves time on, and sometimes back, as when another writer's clock is
// behind.
func (h *historian) tick() {
	if h.chance(5) {
		h.Advance(-time.Duration(h.rng.Int64N(int64(time.Minute))))
		return
	}
	h.Advance(time.Duration(h.rng.Int64N(int64(2 * time.Hour))))
}

// event appends a change with an actor and, often, an idempotency key. It
// reports whether the change had an effect.
func (h *historian) event(about string, c events.Change) bool {
	e := events.Event{About: about, Change: c, Time: h.now, Actor: h.actor()}
	e.Rests = h.rests(&e)
	key := h.chance(30)
	if key {
		e.Key = events.NewCommandKey(e.Actor.Account, fmt.Sprintf("%s/%d", h.epoch, h.rng.Uint64()))
		e.Digest = events.HashRequest([]byte(about))
	}
	at := h.Add(e)
	h.state.Add(h.Messages[at-1])
	_, void := h.state.Void(at)
	if key && !void {
		h.run.Keys = append(h.run.Keys, e.Key)
	}
	return !void
}

// actor returns no actor, a person or a token. Many of them have not ended.
func (h *historian) actor() (a events.Actor) {
	defer func() {
		if a.Account != "" {
			a.Address = pick(h.rng, []string{"", "192.0.2.7", "2001:db8::7"})
		}
	}()
	switch roll := h.rng.IntN(100); {
	case roll < 30 || len(h.run.Accounts) == 0:
		return a
	case roll < 55 && len(h.run.Tokens) > 0:
		id := pick(h.rng, h.run.Tokens)
		if len(h.alive) > 0 && h.chance(80) {
			id = pick(h.rng, h.alive)
		}
		t, _ := h.state.Token(id)
		return events.Actor{Account: t.Account, Token: id}
	case roll < 70 && len(h.sessions) > 0:
		return pick(h.rng, h.sessions)
	}
	a = events.Actor{Account: pick(h.rng, h.run.Accounts)}
	if len(h.accounts) > 0 && h.chance(80) {
		a.Account = pick(h.rng, h.accounts)
	}
	if h.chance(30) {
		a.Session, a.Opened = events.SessionID(h.ulid("ses_")), h.End()
		h.sessions = append(h.sessions, a)
	}
	return a
}

// rests returns the versions that the decision depends on, sometimes wrong ones.
func (h *historian) rests(e *events.Event) events.Rests {
	if e.Actor.Account == "" {
		return nil
	}
	names := map[string]bool{string(e.Actor.Account): true, events.PolicyName: h.chance(50)}
	if e.Actor.Token != "" {
		names[string(e.Actor.Token)] = true
	}
	if len(h.accounts) > 0 && h.chance(30) {
		names[string(pick(h.rng, h.accounts))] = true
	}
	names[e.About] = false
	out := events.Rests{} // nil would be filled in
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !names[name] || h.chance(3) {
			continue
		}
		version := h.state.version(name)
		if version > 0 && h.chance(3) {
			version--
		}
		out = append(out, events.Rest{About: name, Version: version})
	}
	return out
}

func (h *historian) createAccount() {
	id := events.AccountID(h.ulid("acc_"))
	c := &events.AccountCreated{Type: events.UserAccount, Grants: h.scopes()}
	if h.chance(10) {
		c.Source = "matomo"
	}
	if len(h.accounts) > 0 && h.chance(30) {
		c.Type, c.Owner = events.ServiceAccount, pick(h.rng, h.accounts)
	}
	if h.event(string(id), c) {
		h.run.Accounts = append(h.run.Accounts, id)
		h.accounts = append(h.accounts, id)
	}
}

func (h *historian) changeAccount() {
	id := pick(h.rng, h.accounts)
	var c events.Change
	switch roll := h.rng.IntN(100); {
	case roll < 30:
		c = &events.AccountGranted{Grants: h.scopes()}
	case roll < 45:
		edit := &events.AccountEdited{}
		if h.chance(60) {
			edit.Owner = new(pick(h.rng, append(h.accounts, ""))) // "" removes the owner
		}
		if h.chance(60) {
			edit.SelfService = new(h.chance(50))
		}
		if h.chance(30) {
			edit.Person = pick(
				h.rng,
				[][]events.PersonField{
					{events.PersonMail},
					{events.PersonName},
					{events.PersonMail, events.PersonName},
				},
			)
		}
		c = edit
	case roll < 65:
		c = &events.AccountSuspended{Reason: h.label()}
	case roll < 85:
		c = &events.AccountResumed{}
	case roll < 88:
		c = &events.AccountTokensRevoked{NotBefore: h.cutoff(), Reason: h.label()}
	case roll < 92:
		c = h.changeCredential()
	case roll < 95:
		c = h.endSession()
	case roll < 97:
		c = &events.AccountUnchanged{Command: h.label()}
	default:
		c = &events.AccountErased{}
	}
	if h.event(string(id), c) && c.Kind() == events.KindAccountErased {
		h.accounts = slices.DeleteFunc(h.accounts, func(a events.AccountID) bool { return a == id })
		h.erased = append(h.erased, id)
	}
}

func (h *historian) changeCredential() *events.AccountCredentialChanged {
	c := &events.AccountCredentialChanged{Credential: events.CredentialPassword, EndsSessions: h.chance(70)}
	if c.EndsSessions && len(h.sessions) > 0 && h.chance(50) {
		c.Kept = pick(h.rng, h.sessions).Session
	}
	return c
}

func (h *historian) endSession() *events.AccountSessionEnded {
	if len(h.sessions) > 0 && h.chance(90) {
		return &events.AccountSessionEnded{Session: pick(h.rng, h.sessions).Session}
	}
	return &events.AccountSessionEnded{Session: events.SessionID(h.ulid("ses_"))}
}

func (h *historian) changePolicy() {
	switch roll := h.rng.IntN(100); {
	case roll < 20:
		h.event(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: h.cutoff(), Reason: h.label()})
		return
	case roll < 30:
		h.event(events.PolicyName, &events.PolicyUnchanged{Command: h.label()})
		return
	case roll < 40:
		h.event(events.LogName, &events.LogConfirmed{Ledger: pick(h.rng, []string{"", "ledger-1"})})
		return
	}
	life := h.rng.Int64N(400 * 86400)
	p := events.Policy{
		MaxLifetime: life, DefaultLifetime: h.rng.Int64N(life + 1), MaxGrace: h.rng.Int64N(40 * 86400),
		Issuers: pick(
			h.rng,
			[]events.IssuerPolicy{"", events.IssuersAll, events.IssuersSiteAdmins, events.IssuersSuperusers},
		),
		LegacyRefused: h.chance(10), URLRefused: h.chance(30), TokenSignIn: h.chance(20),
		SiteAdminsAnyAccount: life%5 == 0,
	}
	if h.chance(50) {
		p.WarnBefore, p.SessionIdle, p.SessionLifetime = h.rng.Int64N(
			40*86400,
		), h.rng.Int64N(
			3600,
		), 3600+h.rng.Int64N(
			86400,
		)
	}
	if h.chance(30) {
		p.LegacyUntil = h.expiry()
	}
	h.event(events.PolicyName, &events.PolicySet{Policy: p})
}

// issueReceipt writes a receipt for the log so far. It may cover less than an
// earlier receipt, because ledgers do not wait for each other.
func (h *historian) issueReceipt() {
	c := &events.ReceiptIssued{
		Covers: events.Position(1 + h.rng.IntN(len(h.Messages))), Ledger: pick(h.rng, []string{"ledger-1", "ledger-2"}),
		Barrier: events.LeaseSeq(
			1 + h.rng.Uint64N(1000),
		), Lease: 30_000, Asked: h.now, Took: events.Milliseconds(h.rng.Int64N(31_000)),
		Nodes: []events.NodeReceipt{},
	}
	for i := range h.rng.IntN(4) {
		n := events.NodeReceipt{
			Holder: events.Holder{Node: fmt.Sprintf("verifier-%d", i), Instance: "a1b2c3"}, At: h.now,
			How: pick(h.rng, []events.NodeStop{events.StopApplied, events.StopGivenUp, events.StopExpired}),
		}
		if n.How == events.StopExpired && h.chance(50) {
			n.Stale = map[string]time.Time{"track": h.now.Add(time.Minute)}
		}
		c.Nodes = append(c.Nodes, n)
	}
	h.event(events.ReceiptName, c)
}

// cutoff returns a time before which some tokens were created: a few events
// ago, or long ago. Zero ends all tokens that were created at a lower position.
func (h *historian) cutoff() time.Time {
	if h.chance(40) {
		return time.Time{}
	}
	return h.now.Add(-time.Duration(h.rng.Int64N(int64(10 * 24 * time.Hour))))
}

func (h *historian) createToken() {
	id := h.TokenID()
	account := pick(h.rng, h.accounts)
	if len(h.erased) > 0 && h.chance(3) {
		account = pick(h.rng, h.erased) // erased while the token was being made
	}
	c := &events.TokenCreated{
		Account: account, App: h.label(), Device: h.label(),
		Scopes: h.scopes(), Inherit: h.chance(15), Secret: h.secret(),
	}
	if h.chance(50) {
		c.Expires = h.expiry()
	}
	if h.chance(30) {
		c.Constraints = h.constraints()
	}
	if h.chance(12) {
		c.Import = h.imported(&c.Secret)
	}
	if h.event(string(id), c) {
		h.run.Tokens = append(h.run.Tokens, id)
		h.alive = append(h.alive, id)
	}
}

func (h *historian) changeToken() {
	id := pick(h.rng, h.alive)
	var c events.Change
	switch roll := h.rng.IntN(100); {
	case roll < 15:
		scoped := &events.TokenScoped{Scopes: h.scopes(), Inherit: h.chance(15)}
		if h.chance(30) {
			scoped.Edit = h.edit()
		}
		c = scoped
	case roll < 32:
		c = h.edit()
	case roll < 62:
		c = &events.TokenRotated{Secret: h.secret(), Until: h.grace()}
	case roll < 76:
		c = &events.TokenSuspended{Reason: h.label()}
	case roll < 86:
		c = &events.TokenResumed{}
	case roll < 89:
		if len(h.run.Tokens) > 0 && h.chance(50) {
			id = pick(h.rng, h.run.Tokens) // revoked, perhaps
		}
		c = &events.TokenUnchanged{Command: h.label()}
	default:
		c = &events.TokenRevoked{Reason: h.label()}
	}
	if h.event(string(id), c) && c.Kind() == events.KindTokenRevoked {
		h.alive = slices.DeleteFunc(h.alive, func(t events.TokenID) bool { return t == id })
	}
}

func (h *historian) edit() *events.TokenEdited {
	c := &events.TokenEdited{}
	if h.chance(40) {
		c.App = new(h.label())
	}
	if h.chance(40) {
		c.Device = new(h.label())
	}
	if h.chance(50) {
		c.Expires = new(h.expiry())
	}
	if h.chance(40) {
		c.Constraints = h.constraints()
	}
	if h.chance(10) {
		c.LastUsed = new(h.now)
	}
	return c
}

// secret returns a new secret, or sometimes one that a token has had.
func (h *historian) secret() events.SecretRecord {
	if len(h.run.Secrets) > 0 && h.chance(6) {
		return SecretRecord(pick(h.rng, h.run.Digests))
	}
	s := h.Secret()
	h.run.Secrets = append(h.run.Secrets, s)
	h.run.Digests = append(h.run.Digests, s.Digest())
	r := SecretRecord(s.Digest())
	if h.chance(8) {
		r.Format = events.FormatHex32
	}
	return r
}

// imported makes a secret's digest one of Matomo's scheme, and returns where the
// token comes from.
func (h *historian) imported(r *events.SecretRecord) *events.TokenImport {
	r.Scheme, r.Format = events.SchemeMatomo, events.FormatHex32
	i := &events.TokenImport{Source: pick(h.rng, []string{"matomo", "old-1"}), Migrated: h.chance(20)}
	if h.chance(80) {
		i.Created = h.now.AddDate(-1, 0, 0)
	}
	if h.chance(50) {
		i.LastUsed = h.now.AddDate(0, 0, -h.rng.IntN(400))
	}
	return i
}

func (h *historian) grace() time.Time {
	switch h.rng.IntN(10) {
	case 0:
		return h.now
	case 1:
		return time.Unix(0, 0).UTC()
	case 2, 3:
		return time.Time{} // the old secret ends with the event
	}
	return h.now.Add(time.Duration(h.rng.Int64N(int64(48 * time.Hour))))
}

func (h *historian) expiry() time.Time {
	switch h.rng.IntN(12) {
	case 0:
		return time.Time{}
	case 1:
		return h.now
	case 2:
		return time.Unix(0, 0).UTC()
	case 3:
		return time.Date(1500, time.May, 6, 7, 8, 9, 10, time.UTC)
	case 4:
		return time.Date(9999, time.December, 31, 23, 59, 59, 999_999_999, time.UTC)
	}
	return h.now.Add(time.Duration(h.rng.Int64N(int64(60 * 24 * time.Hour)))).In(time.FixedZone("", 3600))
}

func (h *historian) scopes() []events.Scope {
	permissions := events.Matomo.Permissions()
	out := []events.Scope{}
	for range h.rng.IntN(4) {
		s := events.Scope{
			Permission: pick(h.rng, permissions),
			Type:       "site",
			ID:         pick(h.rng, []string{"1", "2", "3", "*"}),
		}
		if global := (events.Scope{Permission: s.Permission}); events.Matomo.Check(global) == nil {
			s = global
		}
		out = append(out, s)
	}
	return out
}

func (h *historian) constraints() *events.Constraints {
	c := &events.Constraints{HeaderOnly: h.chance(30)}
	if h.chance(40) {
		c.CIDRs = []netip.Prefix{
			netip.MustParsePrefix("192.0.2.0/24"),
			netip.MustParsePrefix("2001:db8::/32"),
		}[h.rng.IntN(2):]
	}
	if h.chance(30) {
		c.Origins = []string{"https://example.org", "http://localhost:8080"}[h.rng.IntN(2):]
	}
	if h.chance(30) {
		c.Methods = []string{"GET", "HEAD"}[h.rng.IntN(2):]
	}
	if h.chance(30) {
		c.Audience = []string{"reporting"}
	}
	if h.chance(20) {
		c.Rate = events.MaxRate // so high that tests never reach it
	}
	return c
}

func (h *historian) label() string {
	return pick(h.rng, []string{"", "", "cron", "phone", "R&D <test>", "écran № 2", `back\slash "quoted"`})
}

// chance returns true with a probability in percent.
func (h *historian) chance(percent int) bool { return h.rng.IntN(100) < percent }

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
