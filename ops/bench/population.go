package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// population is the tokens of one size. Everything about token i follows from
// the seed and i, so none of it is kept.
//
// The questions are about tokens below size. Every sixteenth of these is revoked.
// The tokens from size on are live until a measurement revokes them.
type population struct {
	seed   uint64
	size   int
	doomed int
}

const (
	revokedEvery = 16
	perAccount   = 100  // tokens of one account
	sites        = 1000 // token i is for site i mod sites, plus 1
	batchSize    = 4096 // events handed on at a time

	secretLength = 42
)

// The purposes of random numbers. Each has its own sequence.
const (
	domainSecret = iota + 1
	domainStranger
	domainToken
	domainAccount
	domainEvent
	domainEpoch
	domainDraw
)

// begin is when everything was made. Tokens expire ten years later.
var (
	begin = time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)
	end   = begin.AddDate(10, 0, 0)
)

func (p *population) all() int { return p.size + p.doomed }

// revoked reports whether token i is revoked before anything is measured.
func (p *population) revoked(i int) bool { return i < p.size && i%revokedEvery == revokedEvery-1 }

func site(token int) int { return token%sites + 1 }

func (p *population) draw(domain, i int) *rand.PCG {
	return rand.NewPCG(p.seed<<8|uint64(domain), uint64(i)*0x9e3779b97f4a7c15)
}

// secret appends the secret of token i to b.
func (p *population) secret(b []byte, i int) []byte { return p.secretOf(b, domainSecret, i) }

// stranger appends a well-formed secret that no token has.
func (p *population) stranger(b []byte, i int) []byte { return p.secretOf(b, domainStranger, i) }

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func (p *population) secretOf(b []byte, domain, i int) []byte {
	from := len(b)
	b = append(b, events.DefaultFormat.User...)
	draw := p.draw(domain, i)
	for range 4 {
		for r, n := draw.Uint64(), 0; n < 8; n++ {
			b = append(b, base62[r%62])
			r /= 62
		}
	}
	sum := crc32.ChecksumIEEE(b[from:])
	b = append(b, "000000"...)
	for at := len(b) - 1; sum > 0; at-- {
		b[at] = base62[sum%62]
		sum /= 62
	}
	return b
}

// digest returns the digest of the secret of token i.
func (p *population) digest(i int) events.Digest {
	var b [64]byte
	return sha256.Sum256(p.secret(b[:0], i))
}

// id returns the 16 bytes of an id: its creation time, one per millisecond, and
// random bits.
func (p *population) id(domain, i int) (b [16]byte) {
	draw := p.draw(domain, i)
	binary.BigEndian.PutUint64(b[:], uint64(begin.UnixMilli()+int64(i))<<16)
	binary.BigEndian.PutUint16(b[6:], uint16(draw.Uint64()))
	binary.BigEndian.PutUint64(b[8:], draw.Uint64())
	return b
}

func (p *population) token(i int) events.TokenID { return events.TokenIDFrom(p.id(domainToken, i)) }

func (p *population) account(i int) events.AccountID {
	return events.AccountIDFrom(p.id(domainAccount, i))
}

// message returns the event at a position.
func (p *population) message(at events.Position, about string, c events.Change) (events.Message, error) {
	_, id, _ := strings.Cut(string(events.TokenIDFrom(p.id(domainEvent, int(at)))), "_")
	_, epoch, _ := strings.Cut(string(events.TokenIDFrom(p.id(domainEpoch, 0))), "_")
	e := events.Event{ID: events.EventID("evt_" + id), Epoch: epoch, Time: begin, About: about, Change: c}
	data, err := events.Encode(&e)
	return events.Message{Position: at, Subject: e.Subject(), Data: data}, err
}

// revocation returns the event that revokes token i.
func (p *population) revocation(at events.Position, i int) (events.Message, error) {
	return p.message(at, string(p.token(i)), &events.TokenRevoked{})
}

// events returns the number of events of the population.
func (p *population) events() int {
	return (p.all()+perAccount-1)/perAccount + p.all() + p.size/revokedEvery
}

// each passes on, in batches, the events of the population: accounts with view
// and track on every site, tokens with view and track on one site, and
// revocations.
func (p *population) each(ctx context.Context, take func([]events.Message) error) error {
	var batch []events.Message
	at := events.Position(0)
	add := func(about string, c events.Change) error {
		at++
		m, err := p.message(at, about, c)
		if err != nil {
			return fmt.Errorf("make event %d: %w", at, err)
		}
		if batch = append(batch, m); len(batch) < batchSize {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		full := batch
		batch = make([]events.Message, 0, batchSize)
		return take(full)
	}
	grants := []events.Scope{events.MustScope("view:site/*"), events.MustScope("track:site/*")}
	for a := range (p.all() + perAccount - 1) / perAccount {
		if err := add(string(p.account(a)), &events.AccountCreated{Type: events.UserAccount, Grants: grants}); err != nil {
			return err
		}
	}
	scopes := siteScopes("view", "track")
	for i := range p.all() {
		c := &events.TokenCreated{
			Account: p.account(i / perAccount), App: "app", Scopes: scopes[i%sites], Expires: end,
			Secret: events.SecretRecord{Scheme: events.SchemeSHA256, Digest: p.digest(i)},
		}
		if err := add(string(p.token(i)), c); err != nil {
			return err
		}
	}
	for i := revokedEvery - 1; i < p.size; i += revokedEvery {
		if err := add(string(p.token(i)), &events.TokenRevoked{}); err != nil {
			return err
		}
	}
	return take(batch)
}

// siteScopes returns, for each site, permissions on it.
func siteScopes(permissions ...string) [sites][]events.Scope {
	var out [sites][]events.Scope
	for i := range out {
		for _, permission := range permissions {
			out[i] = append(out[i], events.MustScope(fmt.Sprintf("%s:site/%d", permission, site(i))))
		}
	}
	return out
}
