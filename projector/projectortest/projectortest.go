// Package projectortest tests the contract of an index: the answers that every
// implementation must give after a log.
//
// [Run] tests an implementation. [Compare] compares an index that has applied a
// log with [eventstest.Fold], the reference.
package projectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Reader is the queries of an index.
type Reader interface {
	Position() events.Position
	Lookup(events.Digest) (projector.Record, error)
	MatomoSince() (events.Position, error)
	Token(events.TokenID) (*events.Token, error)
	Account(events.AccountID) (*events.Account, error)
	Policy() (events.PolicyState, error)
	Command(events.CommandKey) (events.Done, error)
	LastPosition(shard string) events.Position
	Receipt(pos events.Position) (*events.Receipt, error)
	Void(pos events.Position) (why string, void bool, err error)
	SessionEnded(id events.SessionID) (bool, error)
}

// Index is a Reader that applies a log.
type Index interface {
	Reader
	Apply(context.Context, []events.Message) error
	// Digest is a checksum of the content. It does not depend on how the index
	// got the content. ComparePoint is the digest at the last multiple of
	// [projector.CompareEvery], and DigestAt the digest at an earlier one.
	Digest() (events.Position, events.IndexDigest)
	ComparePoint() (events.Position, events.IndexDigest)
	DigestAt(events.Position) (events.IndexDigest, bool)
	// Dump writes the content in a canonical form, for comparisons.
	Dump(io.Writer) error
	Close() error
}

// Compare returns an error that lists where an index differs from the
// reference.
func Compare(want eventstest.State, got Reader) error {
	c := comparison{want: want, got: got}
	c.add("log", want.Err())
	if c.same("position", want.Position(), got.Position(), nil); len(c.problems) > 0 {
		return errors.Join(c.problems...) // the rest would differ as well
	}
	for _, d := range want.Digests() {
		c.record(d)
	}
	for _, id := range want.Tokens() {
		wantToken, _ := want.Token(id)
		gotToken, err := got.Token(id)
		c.same(fmt.Sprintf("Token(%s)", id), &wantToken, gotToken, err)
	}
	for _, id := range want.Accounts() {
		wantAccount, _ := want.Account(id)
		gotAccount, err := got.Account(id)
		c.same(fmt.Sprintf("Account(%s)", id), &wantAccount, gotAccount, err)
	}
	for _, key := range want.Keys() {
		wantDone, _ := want.Command(key)
		gotDone, err := got.Command(key)
		c.same(fmt.Sprintf("Command(%s)", key), wantDone, gotDone, err)
	}
	for shard, endPos := range want.Shards() {
		c.same(fmt.Sprintf("LastPosition(%s)", shard), endPos, got.LastPosition(shard), nil)
	}
	for pos := range want.Position() + 1 {
		_, wantVoid := want.Void(pos)
		why, void, err := got.Void(pos)
		c.same(fmt.Sprintf("Void(%d)", pos), wantVoid, void, err)
		c.same(fmt.Sprintf("whether Void(%d) says why", pos), wantVoid, why != "", nil)
	}
	for _, id := range want.SessionsEnded() {
		ended, err := got.SessionEnded(id)
		c.same(fmt.Sprintf("SessionEnded(%s)", id), true, ended, err)
	}
	ended, err := got.SessionEnded("ses_00000000000000000000000000")
	c.same("SessionEnded(never seen)", false, ended, err)
	policy, err := got.Policy()
	c.same("Policy()", want.Policy(), policy, err)
	since, err := got.MatomoSince()
	c.same("MatomoSince()", want.MatomoSince(), since, err)
	c.receipts()
	c.absent()
	const maxProblems = 5
	if n := len(c.problems); n > maxProblems {
		c.problems = append(c.problems[:maxProblems], fmt.Errorf("and %d other differences", n-maxProblems))
	}
	return errors.Join(c.problems...)
}

type comparison struct {
	want     eventstest.State
	got      Reader
	problems []error
}

func (c *comparison) add(what string, err error) {
	if err != nil {
		c.problems = append(c.problems, fmt.Errorf("%s: %w", what, err))
	}
}

func (c *comparison) same(what string, want, got any, err error) {
	if err != nil {
		c.add(what, err)
		return
	}
	// Whether an empty list is nil is not part of the contract.
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		c.problems = append(c.problems, fmt.Errorf("%s: -want +got\n%s", what, diff))
	}
}

// record compares the record that a check of a secret reads.
func (c *comparison) record(d events.Digest) {
	secret, _ := c.want.Secret(d)
	what := fmt.Sprintf("Lookup(secret given at %d)", secret.Given)
	got, err := c.got.Lookup(d)
	if err != nil {
		c.add(what, err)
		return
	}
	want := recordOf(c.want, secret, d)
	if secret.Superseded {
		// The secret is not accepted. The rest is as it was when the secret
		// ended.
		want = projector.Record{
			Token:   want.Token,
			Account: want.Account,
			State:   projector.SecretSuperseded,
			Created: want.Created,
		}
		got = projector.Record{Token: got.Token, Account: got.Account, State: got.State, Created: got.Created}
	}
	c.same(what, want, got, nil)
}

// receipts compares the receipt of every position.
func (c *comparison) receipts() {
	for pos := events.Position(0); pos <= c.want.Position()+1; pos++ {
		want, ok := c.want.Receipt(pos)
		got, err := c.got.Receipt(pos)
		if !ok {
			c.notFound(fmt.Sprintf("Receipt(%d)", pos), err)
			return // no receipt covers later positions either
		}
		c.same(fmt.Sprintf("Receipt(%d)", pos), &want, got, err)
		pos = max(pos, want.Covers) // all positions up to there have the same receipt
	}
}

// CompareFacts compares the result of a lookup of a secret with the reference
// at the result's position.
func CompareFacts(want eventstest.State, d events.Digest, got projector.Facts, err error) error {
	c := comparison{want: want}
	c.same("position", want.Position(), got.Position, nil)
	secret, ok := want.Secret(d)
	if !ok {
		c.notFound("Find", err)
		return errors.Join(c.problems...)
	}
	if err != nil {
		return errors.Join(append(c.problems, err)...)
	}
	c.got = lookedUp{record: got.Record()}
	c.record(d)
	t, _ := want.Token(secret.Token)
	a, _ := want.Account(t.Account)
	c.same("Find's account", &a, got.Account.Account, nil)
	c.same("Find's grants", a.Grants, got.Account.Granted.List(), nil)
	c.same("whether Find's account is good", !a.Suspended && !a.Erased, got.Account.Good, nil)
	c.same("before when Find's account ends tokens", resident.Instant(a.NotBefore), got.Account.NotBeforeNano, nil)
	c.same("until where Find's account ends tokens", a.TokensUntil, got.Account.Until, nil)
	c.same("Find's policy", want.Policy(), got.Policy.PolicyState, nil)
	c.same(
		"before when Find's policy ends tokens",
		resident.Instant(want.Policy().NotBefore),
		got.Policy.NotBeforeNano,
		nil,
	)
	return errors.Join(c.problems...)
}

// lookedUp answers Lookup with an earlier result.
type lookedUp struct {
	Reader
	record projector.Record
}

func (l lookedUp) Lookup(events.Digest) (projector.Record, error) { return l.record, nil }

// recordOf returns the record of a secret that was not superseded.
func recordOf(s eventstest.State, secret eventstest.Secret, d events.Digest) projector.Record {
	t, _ := s.Token(secret.Token)
	r := projector.Record{
		Token: t.ID, Account: t.Account, App: t.App, State: projector.SecretLive, Inherit: t.Inherit,
		Created: t.Created, CreatedIn: t.CreatedIn, Expires: storable(t.Expires),
		Until: storable(secret.Until), Plain: secret.Plain,
		Scopes: t.Scopes, Constraints: t.Constraints, Version: t.Version,
	}
	for _, slot := range t.Secrets {
		if slot.Digest == d {
			r.IssuedBy = slot.IssuedBy
		}
	}
	switch t.State {
	case events.Suspended:
		r.State = projector.SecretSuspended
	case events.Revoked:
		r.State = projector.SecretRevoked
	}
	return r
}

// storable returns an end in the form that a record stores. A time after the
// year 2261 is stored as never, and a time before 1970 as the first instant.
func storable(t time.Time) time.Time {
	switch first := time.Unix(0, 1).UTC(); {
	case t.Year() > 2261:
		return time.Time{}
	case !t.IsZero() && t.Before(first):
		return first
	}
	return t
}

// absent queries records that do not exist.
func (c *comparison) absent() {
	strange := eventstest.NewLog(^uint64(0))
	_, err := c.got.Lookup(strange.Secret().Digest())
	c.notFound("Lookup(never seen)", err)
	_, err = c.got.Token(strange.TokenID())
	c.notFound("Token(never seen)", err)
	_, err = c.got.Account(strange.Account())
	c.notFound("Account(never seen)", err)
	_, err = c.got.Command(events.NewCommandKey("", "never seen"))
	c.notFound("Command(never seen)", err)
	c.same("LastPosition(never seen)", events.Position(0), c.got.LastPosition("ledger.token.never"), nil)
}

func (c *comparison) notFound(what string, err error) {
	if !errors.Is(err, projector.ErrNotFound) {
		c.problems = append(c.problems, fmt.Errorf("%s: error %v, want ErrNotFound", what, err))
	}
}

// Run tests an implementation of the contract. open opens the index in a
// folder, or creates an empty one.
func Run(t *testing.T, open func(t testing.TB, dir string) Index) {
	h := &harness{open: open}
	t.Run("Life", h.life)
	t.Run("Rotation", h.rotation)
	t.Run("FirstOwnerKeepsDigest", h.firstOwner)
	t.Run("Account", h.account)
	t.Run("Absent", h.absent)
	t.Run("Restart", h.restart)
	t.Run("DumpKnowsNoBatches", h.dump)
	t.Run("Digest", h.digest)
	t.Run("Gap", h.gap)
}

type harness struct {
	open func(t testing.TB, dir string) Index
}

// follow applies messages to a new index, which it closes at the end of the
// test.
func (h *harness) follow(t *testing.T, messages []events.Message) Index {
	t.Helper()
	index := h.open(t, t.TempDir())
	t.Cleanup(func() { Close(t, index) })
	Apply(t, index, messages)
	return index
}

func (h *harness) life(t *testing.T) {
	log := eventstest.NewLog(1)
	id, secret := log.Token(log.Account("admin:site/*"), "view:site/1")
	index := h.follow(t, log.Messages)
	check := func(want projector.RecordState, scopes ...string) {
		t.Helper()
		if err := Compare(eventstest.Fold(log.Messages), index); err != nil {
			t.Error(err)
		}
		r, err := index.Lookup(secret.Digest())
		if err != nil {
			t.Fatal(err)
		}
		if r.State != want {
			t.Errorf("Lookup.State = %d, want %d", r.State, want)
		}
		if got := eventstest.Scopes(scopes...); !cmp.Equal(r.Scopes, got) {
			t.Errorf("Lookup.Scopes = %v, want %v", r.Scopes, got)
		}
	}
	change := func(c events.Change) {
		t.Helper()
		log.Change(string(id), c)
		Apply(t, index, log.Messages[len(log.Messages)-1:])
	}
	check(projector.SecretLive, "view:site/1")
	change(&events.TokenScoped{Scopes: eventstest.Scopes("read:site/1", "track:site/2")})
	check(projector.SecretLive, "read:site/1", "track:site/2")
	change(&events.TokenSuspended{Reason: "lost phone"})
	check(projector.SecretSuspended, "read:site/1", "track:site/2")
	change(&events.TokenEdited{App: new("another")})
	check(projector.SecretSuspended, "read:site/1", "track:site/2")
	change(&events.TokenResumed{})
	check(projector.SecretLive, "read:site/1", "track:site/2")
	change(&events.TokenRevoked{Reason: "found by a stranger"})
	check(projector.SecretRevoked, "read:site/1", "track:site/2")
}

func (h *harness) rotation(t *testing.T) {
	log := eventstest.NewLog(2)
	id, first := log.Token(log.Account("admin:site/*"), "view:site/1")
	second := log.Rotate(id, log.Now().Add(time.Hour))
	third := log.Rotate(id, log.Now().Add(2*time.Hour))
	index := h.follow(t, log.Messages)
	states := func(want ...projector.RecordState) {
		t.Helper()
		if err := Compare(eventstest.Fold(log.Messages), index); err != nil {
			t.Error(err)
		}
		for i, s := range []events.Secret{first, second, third} {
			if r, err := index.Lookup(s.Digest()); err != nil || r.State != want[i] || r.Token != id {
				t.Errorf(
					"Lookup(secret %d) = %s, state %d, %v; want %s, state %d",
					i+1,
					r.Token,
					r.State,
					err,
					id,
					want[i],
				)
			}
		}
	}
	states(projector.SecretSuperseded, projector.SecretLive, projector.SecretLive)
	log.Revoke(id)
	Apply(t, index, log.Messages[len(log.Messages)-1:])
	states(projector.SecretSuperseded, projector.SecretRevoked, projector.SecretRevoked)
}

func (h *harness) firstOwner(t *testing.T) {
	log := eventstest.NewLog(3)
	account := log.Account("admin:site/*")
	id, secret := log.Token(account, "read:site/1")
	again := log.TokenID()
	log.Change(string(again), &events.TokenCreated{
		Account: account, Scopes: eventstest.Scopes("admin:site/*"), Secret: eventstest.SecretRecord(secret.Digest()),
	})
	log.Revoke(id)
	// Issuing the secret a second time does not make it valid again.
	log.Change(string(again), &events.TokenRotated{Secret: eventstest.SecretRecord(secret.Digest()), Until: log.Now()})
	index := h.follow(t, log.Messages)
	if err := Compare(eventstest.Fold(log.Messages), index); err != nil {
		t.Error(err)
	}
	if r, err := index.Lookup(secret.Digest()); err != nil || r.Token != id || r.State != projector.SecretRevoked {
		t.Errorf("Lookup = %s, state %d, %v; want the first token, %s, revoked", r.Token, r.State, err, id)
	}
}

func (h *harness) account(t *testing.T) {
	log := eventstest.NewLog(4)
	account := log.Account("view:site/1")
	log.Change(string(account), &events.AccountGranted{Grants: eventstest.Scopes("read:site/1")})
	log.Change(string(account), &events.AccountSuspended{Reason: "on leave"})
	later := log.Now()
	log.Change(string(account), &events.AccountTokensRevoked{NotBefore: later})
	log.Change(string(account), &events.AccountTokensRevoked{NotBefore: later.Add(-time.Hour)}) // revokes nothing
	log.Change(events.PolicyName, &events.PolicySet{Policy: events.DefaultPolicy})
	log.Change(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: later})
	log.Change(string(account), &events.AccountErased{})
	index := h.follow(t, log.Messages)
	if err := Compare(eventstest.Fold(log.Messages), index); err != nil {
		t.Error(err)
	}
	a, err := index.Account(account)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Suspended || !a.Erased || !a.NotBefore.Equal(later) {
		t.Errorf(
			"Account = suspended %t, erased %t, tokens before %s; want true, true, %s",
			a.Suspended,
			a.Erased,
			a.NotBefore,
			later,
		)
	}
	if p, err := index.Policy(); err != nil || p.Policy != events.DefaultPolicy || !p.NotBefore.Equal(later) {
		t.Errorf("Policy() = %+v, %v, want the default and tokens before %s", p, err, later)
	}
}

func (h *harness) absent(t *testing.T) {
	index := h.open(t, t.TempDir())
	defer Close(t, index)
	if err := Compare(eventstest.Fold(nil), index); err != nil {
		t.Errorf("an empty index: %v", err)
	}
}

func (h *harness) restart(t *testing.T) {
	run := eventstest.History(5, 200)
	dir := t.TempDir()
	index := h.open(t, dir)
	Apply(t, index, run.Messages)
	before := Dump(t, index)
	Close(t, index)

	index = h.open(t, dir)
	defer Close(t, index)
	if err := Compare(eventstest.Fold(run.Messages), index); err != nil {
		t.Errorf("%s after a restart: %v", run, err)
	}
	if !bytes.Equal(before, Dump(t, index)) {
		t.Errorf("%s: a restart changed the dump", run)
	}
}

func (h *harness) dump(t *testing.T) {
	run := eventstest.History(6, 200)
	at := len(run.Messages) / 3
	whole, parts := h.follow(t, run.Messages), h.follow(t, run.Messages[:at])
	if bytes.Equal(Dump(t, whole), Dump(t, parts)) {
		t.Errorf("%s: the dump after %d events is the dump after all", run, at)
	}
	for i := range run.Messages[at:] {
		Apply(t, parts, run.Messages[at+i:at+i+1])
	}
	if !bytes.Equal(Dump(t, whole), Dump(t, parts)) {
		t.Errorf("%s: the dump depends on the batches", run)
	}
}

// digest applies a history in two ways, and compares the digests after each
// event.
func (h *harness) digest(t *testing.T) {
	run := eventstest.History(8, 2*int(projector.CompareEvery)+40)
	index := h.open(t, t.TempDir())
	defer Close(t, index)
	digests := make([]events.IndexDigest, 1, len(run.Messages)+1) // by position
	seen := map[events.IndexDigest]events.Position{0: 0}
	for i := range run.Messages {
		Apply(t, index, run.Messages[i:i+1])
		pos, d := index.Digest()
		if other, twice := seen[d]; pos != events.Position(i+1) || twice {
			t.Fatalf("%s: Digest() = %d, %s after %d events, and the digest was that at %d", run, pos, d, i+1, other)
		}
		seen[d], digests = pos, append(digests, d)
		want := pos / projector.CompareEvery * projector.CompareEvery
		if got, d := index.ComparePoint(); got != want || d != digests[want] {
			t.Fatalf("%s: ComparePoint() = %d, %s at %d; want %d, %s", run, got, d, pos, want, digests[want])
		}
	}
	whole := h.follow(t, run.Messages)
	if pos, d := whole.Digest(); int(pos) != len(run.Messages) || d != digests[pos] {
		t.Errorf("%s: in one go the digest at %d is %s, and one by one %s", run, pos, d, digests[pos])
	}
	for pos := range events.Position(len(run.Messages) + 2) {
		d, ok := whole.DigestAt(pos)
		if must := pos%projector.CompareEvery == 0 || int(pos) == len(run.Messages); must && !ok {
			t.Errorf("%s: DigestAt(%d) = false", run, pos)
		}
		if ok && (int(pos) >= len(digests) || d != digests[pos]) {
			t.Errorf("%s: DigestAt(%d) = %s, and one by one it was another", run, pos, d)
		}
	}
}

func (h *harness) gap(t *testing.T) {
	log := eventstest.NewLog(7)
	log.Token(log.Account("view:site/1"), "view:site/1")
	log.Account()
	log.Account()
	index := h.follow(t, log.Messages[:2])
	if err := index.Apply(t.Context(), log.Messages[3:]); !errors.Is(err, projector.ErrGap) {
		t.Errorf("Apply past a gap = %v, want ErrGap", err)
	}
	if err := Compare(eventstest.Fold(log.Messages[:2]), index); err != nil {
		t.Errorf("after a refused message: %v", err)
	}
}

// Apply applies messages to an index. It fails the test on an error.
func Apply(t testing.TB, index Index, messages []events.Message) {
	t.Helper()
	if err := index.Apply(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
}

// Dump returns the dump of an index.
func Dump(t testing.TB, index Index) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := index.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Close closes an index.
func Close(t testing.TB, index Index) {
	t.Helper()
	if err := index.Close(); err != nil {
		t.Error(err)
	}
}
