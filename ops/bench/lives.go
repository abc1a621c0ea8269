package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

const (
	maxLives   = 50_000 // lifetimes folded, four events each
	livesApart = 1000   // lifetimes that are interleaved
)

// lives returns a log of complete token lifetimes: created, scoped, rotated and
// revoked.
func (p *population) lives(n int) ([]events.Message, error) {
	var log []events.Message
	add := func(about string, c events.Change) error {
		m, err := p.message(events.Position(len(log)+1), about, c)
		log = append(log, m)
		return err
	}
	secret := func(i int) events.SecretRecord {
		return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: p.digest(i)}
	}
	wide, narrow := siteScopes("view", "track"), siteScopes("view")
	account := p.account(0)
	grants := []events.Scope{events.MustScope("admin:site/*")}
	if err := add(string(account), &events.AccountCreated{Type: events.UserAccount, Grants: grants}); err != nil {
		return nil, err
	}
	stages := []func(i int) events.Change{
		func(i int) events.Change {
			return &events.TokenCreated{
				Account: account, App: "app", Scopes: wide[i%sites], Expires: end, Secret: secret(2 * i),
			}
		},
		func(i int) events.Change { return &events.TokenScoped{Scopes: narrow[i%sites]} },
		func(i int) events.Change {
			return &events.TokenRotated{Secret: secret(2*i + 1), Until: begin.Add(time.Hour)}
		},
		func(int) events.Change { return &events.TokenRevoked{} },
	}
	for from := 0; from < n; from += livesApart {
		for _, stage := range stages {
			for i := from; i < min(from+livesApart, n); i++ {
				if err := add(string(p.token(i)), stage(i)); err != nil {
					return nil, err
				}
			}
		}
	}
	return log, nil
}

// foldLives folds complete lifetimes into a new index, and returns the events a
// second.
func (p *population) foldLives(ctx context.Context, dir string) (perSecond float64, err error) {
	log, err := p.lives(min(maxLives, p.size))
	if err != nil {
		return 0, err
	}
	freeMemory()
	index, err := openIndex(dir)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for batch := range slices.Chunk(log, batchSize) {
		if err := index.Apply(ctx, batch); err != nil {
			return 0, errors.Join(fmt.Errorf("fold lives: %w", err), index.Close())
		}
	}
	took := time.Since(began)
	return float64(len(log)) / took.Seconds(), index.Close()
}
