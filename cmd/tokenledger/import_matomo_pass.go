package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/directory"
)

// matomoImport brings what was read of an installation to the ledger, pass by pass.
type matomoImport struct {
	env    *env
	ledger *client.Client
	flags  *matomoFlags
	adopt  map[string]bool // logins as they are compared

	// sent are the tokens that an earlier pass sent, by hash: what was sent of each,
	// and its id.
	sent map[events.MatomoHash]sentToken

	// Of this pass: what the ledger had before Matomo was read.
	imported []api.Token // from this source, not ended
	before   []api.Account

	source   *matomo.Source
	report   *importReport
	accounts map[string]*api.Account // login as it is compared -> account
	usable   map[string]string       // Matomo's login -> account's id
	present  map[string]bool         // ids of tokens that Matomo has
}

type sentToken struct {
	form [sha256.Size]byte
	id   string
	ends bool // it has ended in the ledger
}

func newMatomoImport(e *env, ledger *client.Client, f *matomoFlags) *matomoImport {
	m := &matomoImport{
		env: e, ledger: ledger, flags: f, adopt: map[string]bool{}, sent: map[events.MatomoHash]sentToken{},
	}
	for _, login := range f.adopt {
		m.adopt[directory.Fold(login)] = true
	}
	return m
}

// parallel is how many commands are sent at a time.
const parallel = 8

// list lists what the ledger has.
func (m *matomoImport) list(ctx context.Context) (err error) {
	m.before, err = allOf[api.Account](ctx, m.ledger, client.Request{
		Path: []string{"v1", "accounts"}, Query: client.Query("erased", "false"),
	})
	if err == nil {
		m.imported, err = allOf[api.Token](ctx, m.ledger, client.Request{
			Path: []string{"v1", "tokens"}, Query: client.Query("source", m.flags.source, "ended", "false"),
		})
	}
	return err
}

// pass imports once.
func (m *matomoImport) pass(ctx context.Context, s *matomo.Source) (*importReport, error) {
	m.source, m.report = s, newImportReport(m.flags, s)
	m.accounts, m.usable, m.present = map[string]*api.Account{}, map[string]string{}, map[string]bool{}
	for i, a := range m.before {
		if a.Login != "" {
			m.accounts[directory.Fold(a.Login)] = &m.before[i]
		}
	}
	if err := m.importUsers(ctx); err != nil {
		return nil, err
	}
	if err := m.importTokens(ctx); err != nil {
		return nil, err
	}
	if !m.flags.keepDeleted {
		if err := m.endDeleted(ctx); err != nil {
			return nil, err
		}
	}
	m.report.finish(s)
	return m.report, nil
}

// importUsers creates accounts, and sets the grants of those that it created before.
// What takes something away comes first: an import that is interrupted leaves no
// account with more than Matomo gives.
func (m *matomoImport) importUsers(ctx context.Context) error {
	var less, more []func(context.Context) error
	var mu sync.Mutex // guards usable and report
	for i := range m.source.Users {
		u := &m.source.Users[i]
		have := m.accounts[directory.Fold(u.Login)]
		switch {
		case have == nil:
			m.report.Accounts.Created++
			if !m.flags.dry {
				more = append(more, func(ctx context.Context) error { return m.createAccount(ctx, u, &mu) })
			}
			continue
		case have.Source != m.flags.source && !m.adopt[directory.Fold(u.Login)]:
			m.report.Accounts.Refused++
			m.report.problem("user", u.Login, "an account with this login exists and was not imported from "+m.flags.source+
				"; --adopt gives it the tokens")
			continue
		}
		m.usable[u.Login] = have.ID
		if have.Source != m.flags.source || sameScopes(have.Grants, u.Grants) {
			m.report.Accounts.Unchanged++
			continue
		}
		m.report.Accounts.Updated++
		kept := common(have.Grants, u.Grants)
		if len(kept) < len(have.Grants) {
			less = append(less, func(ctx context.Context) error { return m.setGrants(ctx, have.ID, kept) })
		}
		if len(kept) < len(u.Grants) {
			more = append(more, func(ctx context.Context) error { return m.setGrants(ctx, have.ID, u.Grants) })
		}
	}
	if m.flags.dry {
		return nil
	}
	for _, work := range [][]func(context.Context) error{less, more} {
		if err := m.together(ctx, "accounts", work); err != nil {
			return err
		}
	}
	return nil
}

// missing returns the scopes of want that are not in have.
func missing(want, have []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(have, s) })
}

// common returns the scopes of a that are in b.
func common(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

func sameScopes(a, b []string) bool { return len(missing(a, b)) == 0 && len(missing(b, a)) == 0 }

// together runs commands, several at a time, and shows how far they are. The first
// runs alone: it may ask a person to re-authenticate.
func (m *matomoImport) together(ctx context.Context, what string, work []func(context.Context) error) error {
	if len(work) == 0 {
		return nil
	}
	p := m.env.progress(what, len(work))
	if err := work[0](ctx); err != nil {
		return err
	}
	p.add(1)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, do := range work[1:] {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := do(ctx); err != nil {
				return err
			}
			p.add(1)
			return nil
		})
	}
	return group.Wait()
}

func (m *matomoImport) createAccount(ctx context.Context, u *matomo.User, mu *sync.Mutex) error {
	body := map[string]any{"login": u.Login, "kind": "user", "grants": u.Grants, "source": m.flags.source}
	mail := u.Mail
	if mail != "" {
		body["mail"] = mail
	}
	one := *m.ledger // a client serves one request at a time
	r := client.Request{Method: http.MethodPost, Path: []string{"v1", "accounts"}, Body: body, Key: client.NewKey()}
	a, err := one.Do(ctx, r)
	if refused(err) && mail != "" {
		delete(body, "mail") // of a form that the ledger does not take
		r.Key = client.NewKey()
		a, err = one.Do(ctx, r)
		if err == nil {
			mu.Lock()
			m.report.problem("user", u.Login, "the mail address is not one that the ledger keeps, and was left out")
			mu.Unlock()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if refused(err) {
		m.report.Accounts.Created--
		m.report.Accounts.Refused++
		m.report.problem("user", u.Login, exit.Text(err))
		return nil
	}
	if err != nil {
		return err
	}
	var got struct {
		Account api.Account `json:"account"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	m.usable[u.Login] = got.Account.ID
	return nil
}

// refused reports whether the ledger refused what one command asked for, as opposed
// to every command.
func refused(err error) bool {
	f, ok := err.(*exit.Failure)
	return ok && (f.Name == "invalid_request" || f.Name == "exists")
}

func (m *matomoImport) setGrants(ctx context.Context, account string, grants []string) error {
	one := *m.ledger
	_, err := one.Do(ctx, client.Request{
		Method: http.MethodPut, Path: []string{"v1", "accounts", account, "grants"},
		Body: map[string]any{"grants": append([]string{}, grants...)}, Key: client.NewKey(),
	})
	return err
}

// importTokens sends the tokens that no earlier pass has sent as they are.
func (m *matomoImport) importTokens(ctx context.Context) error {
	var list []*matomo.Token
	var rows []map[string]any
	for i := range m.source.Tokens {
		t := &m.source.Tokens[i]
		account, ok := m.usable[t.Login]
		if !ok && m.flags.dry && m.accounts[directory.Fold(t.Login)] == nil {
			m.report.Tokens.Created++ // with its account
			m.report.about(t, "")
			continue
		}
		if !ok {
			m.report.Tokens.Refused++
			continue // its user is reported
		}
		row := tokenRow(t, account)
		if was, ok := m.sent[t.Hash]; ok && was.form == formOf(row) {
			m.count(t, was)
			continue
		}
		list, rows = append(list, t), append(rows, row)
	}
	var work []func(context.Context) error
	var mu sync.Mutex
	for from := 0; from < len(list); from += importBatch {
		to := min(from+importBatch, len(list))
		work = append(work, func(ctx context.Context) error {
			return m.sendTokens(ctx, &mu, list[from:to], rows[from:to])
		})
	}
	return m.together(ctx, fmt.Sprintf("batches of %d tokens", importBatch), work)
}

// importBatch is how many tokens a request has.
const importBatch = 400

// tokenRow is a token in a request.
func tokenRow(t *matomo.Token, account string) map[string]any {
	row := map[string]any{"account": account, "hash": hex.EncodeToString(t.Hash[:]), "app": t.Description}
	if scopes := t.Scopes(); len(scopes) > 0 {
		row["scopes"] = scopes
	}
	for name, at := range map[string]time.Time{
		"expires_at": t.Expires, "created_at": t.Created, "last_used": t.LastUsed.Truncate(24 * time.Hour),
	} {
		if !at.IsZero() {
			row[name] = at
		}
	}
	if t.HeaderOnly {
		row["header_only"] = true
	}
	if t.Migrated {
		row["migrated"] = true
	}
	return row
}

func formOf(row map[string]any) [sha256.Size]byte {
	b, _ := json.Marshal(row) // of texts, times and truths
	return sha256.Sum256(b)
}

// sendTokens sends one request, and notes the results.
func (m *matomoImport) sendTokens(
	ctx context.Context, mu *sync.Mutex, list []*matomo.Token, rows []map[string]any,
) error {
	one := *m.ledger
	body := map[string]any{"source": m.flags.source, "tokens": rows}
	if m.flags.dry {
		body["dry_run"] = true
	}
	a, err := one.Do(ctx, client.Request{
		Method: http.MethodPost, Path: []string{"v1", "imports", "matomo"}, Body: body, Asks: m.flags.dry,
		Key: client.NewKey(), Linger: bulkTime,
	})
	if err != nil {
		return err
	}
	var got struct {
		Results []api.ImportResult `json:"results"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	if len(got.Results) != len(list) {
		return fmt.Errorf("the ledger answered with %d results for %d tokens", len(got.Results), len(list))
	}
	mu.Lock()
	defer mu.Unlock()
	for i, r := range got.Results {
		t := list[i]
		switch r.Outcome {
		case "created":
			m.report.Tokens.Created++
		case "updated":
			m.report.Tokens.Updated++
		case "unchanged":
			m.report.Tokens.Unchanged++
		case "ended":
			m.report.Tokens.Ended++
		default:
			m.report.Tokens.Refused++
			m.report.problem("token", t.Description+" of "+t.Login, r.Problem)
			continue
		}
		m.present[r.ID] = true
		m.sent[t.Hash] = sentToken{formOf(rows[i]), r.ID, r.Outcome == "ended"}
		if r.Outcome != "ended" {
			m.report.about(t, r.ID)
		}
	}
	return nil
}

// count counts a token that an earlier pass has sent.
func (m *matomoImport) count(t *matomo.Token, was sentToken) {
	m.present[was.id] = true
	if was.ends {
		m.report.Tokens.Ended++
		return
	}
	m.report.Tokens.Unchanged++
	m.report.about(t, was.id)
}

// endDeleted revokes the imported tokens that Matomo no longer has, and takes the
// grants of users that it no longer has.
func (m *matomoImport) endDeleted(ctx context.Context) error {
	var work []func(context.Context) error
	for _, t := range m.imported {
		if !m.present[t.ID] {
			m.report.deleted(t.ID, t.App, t.Login)
			work = append(work, func(ctx context.Context) error { return m.revoke(ctx, t.ID) })
		}
	}
	ended := len(work)
	users := map[string]bool{}
	for _, u := range m.source.Users {
		users[directory.Fold(u.Login)] = true
	}
	imported := 0
	for _, a := range m.before {
		if a.Source != m.flags.source {
			continue
		}
		if imported++; users[directory.Fold(a.Login)] || len(a.Grants) == 0 {
			continue
		}
		m.report.emptied(a.Login)
		work = append(work, func(ctx context.Context) error { return m.setGrants(ctx, a.ID, nil) })
	}
	if m.tooMany(ended, len(m.imported)) || m.tooMany(len(work)-ended, imported) {
		m.report.tooMany = exit.Failf(exit.Conflict, "too_many_ended",
			"Matomo no longer has %d of %d imported tokens and %d of %d accounts. So many are not ended without a question, "+
				"and none was. If that is right, use --max-ended %d; if not, check the database and --table-prefix",
			ended, len(m.imported), len(work)-ended, imported, len(work))
		return nil
	}
	m.report.Tokens.Deleted, m.report.Accounts.Deleted = ended, len(work)-ended
	if m.flags.dry {
		return nil
	}
	return m.together(ctx, "tokens and accounts that Matomo no longer has", work)
}

// tooMany reports whether a pass may not end n tokens or accounts of all without a
// question.
func (m *matomoImport) tooMany(n, all int) bool {
	if m.flags.maxEnded >= 0 {
		return n > m.flags.maxEnded
	}
	const least, share = 5, 10
	return n > max(least, all/share) || n > 0 && n == all
}

func (m *matomoImport) revoke(ctx context.Context, id string) error {
	one := *m.ledger
	_, err := one.Do(ctx, client.Request{
		Method: http.MethodPost, Path: []string{"v1", "tokens", id, "revoke"},
		Body: map[string]any{"reason": "deleted in Matomo"}, Key: client.NewKey(),
	})
	return err
}

// progress writes how far long work is, to a person's terminal.
type progress struct {
	env  *env
	what string
	all  int
	done atomic.Int64
	next atomic.Int64 // Unix nanoseconds of the next line
}

func (e *env) progress(what string, all int) *progress {
	p := &progress{env: e, what: what, all: all}
	p.next.Store(time.Now().Add(time.Second).UnixNano())
	return p
}

func (p *progress) add(n int) {
	done := p.done.Add(int64(n))
	due := p.next.Load()
	if now := time.Now(); now.UnixNano() >= due && p.next.CompareAndSwap(due, now.Add(time.Second).UnixNano()) {
		p.env.Note("%d of %d %s", done, p.all, p.what)
	}
}
