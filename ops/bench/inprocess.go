package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tokenledger/tokenledger/events"
)

// mapInstance is a Go map: the lower limit for an index in memory. It must not
// be written and read concurrently.
type mapInstance map[events.Digest]record

func startMap(ctx context.Context, s *stand) (instance, error) {
	m := make(mapInstance, s.tokens.all())
	for i := range s.tokens.all() {
		m[s.tokens.digest(i)] = s.tokens.record(i)
	}
	return m, ctx.Err()
}

func (m mapInstance) session() (checker, error) { return m, nil }
func (m mapInstance) facts() (facts, error)     { return facts{}, nil }
func (m mapInstance) stop() error               { return nil }
func (m mapInstance) close() error              { return nil }

func (m mapInstance) check(q query) (bool, error) {
	digest, ok := digestOf(q.secret)
	if !ok {
		return false, nil
	}
	r, ok := m[digest]
	return ok && r.allows(q), nil
}

// badgerInstance is Badger keyed by digest. It uses the default options, except
// those by which it would compete with the others for resources.
type badgerInstance struct {
	db     *badger.DB
	tokens *population
	dir    string
}

func startBadger(ctx context.Context, s *stand) (instance, error) {
	opt := badger.DefaultOptions(s.dir).WithLogger(nil).WithSyncWrites(false).WithMetricsEnabled(false)
	db, err := badger.Open(opt)
	if err != nil {
		return nil, err
	}
	b := &badgerInstance{db: db, tokens: s.tokens, dir: s.dir}
	w := db.NewWriteBatch()
	defer w.Cancel()
	for i := range s.tokens.all() {
		if i%batchSize == 0 && ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), db.Close())
		}
		key := s.tokens.digest(i)
		if err := w.Set(key[:], s.tokens.record(i).append(nil)); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	if err := w.Flush(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return b, nil
}

func (b *badgerInstance) session() (checker, error) { return badgerSession{b}, nil }
func (b *badgerInstance) stop() error               { return b.db.Close() }

func (b *badgerInstance) facts() (facts, error) {
	disk, err := sizeOf(b.dir)
	return facts{disk: disk, version: moduleVersion("github.com/dgraph-io/badger/v4")}, err
}

func (b *badgerInstance) revoke(_ context.Context, first, n int) error {
	return b.db.Update(func(tx *badger.Txn) error {
		for i := first; i < first+n; i++ {
			key, r := b.tokens.digest(i), b.tokens.record(i)
			r.live = false
			if err := tx.Set(key[:], r.append(nil)); err != nil {
				return err
			}
		}
		return nil
	})
}

type badgerSession struct{ *badgerInstance }

func (badgerSession) close() error { return nil }

func (s badgerSession) check(q query) (allowed bool, err error) {
	digest, ok := digestOf(q.secret)
	if !ok {
		return false, nil
	}
	err = s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(digest[:])
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error {
			r, err := parseRecord(b)
			allowed = r.allows(q)
			return err
		})
	})
	return allowed, err
}

// maxSigned is the maximum number of signed tokens, used in turn. More would not
// change the figures, because nothing is looked up.
const maxSigned = 4096

// jwtInstance verifies signatures. A token is three parts of base64 (RFC 7515
// section 3.1) with an expiry (RFC 7519 section 4.1.4) and a scope (RFC 8693
// section 4.2).
type jwtInstance struct {
	good, foreign []string // signed with our key, and with another
	key           any
	parser        *jwt.Parser
}

// claims are those of an access token with one scope for each permission.
type claims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

func startHS256(_ context.Context, s *stand) (instance, error) {
	ours, theirs := sha256.Sum256([]byte("ours")), sha256.Sum256([]byte("theirs"))
	return startJWT(s.tokens, jwt.SigningMethodHS256, ours[:], theirs[:], ours[:])
}

func startEdDSA(_ context.Context, s *stand) (instance, error) {
	ours, theirs := sha256.Sum256([]byte("ours")), sha256.Sum256([]byte("theirs"))
	key := ed25519.NewKeyFromSeed(ours[:])
	return startJWT(s.tokens, jwt.SigningMethodEdDSA, key, ed25519.NewKeyFromSeed(theirs[:]), key.Public())
}

func startJWT(p *population, method jwt.SigningMethod, ours, theirs, verify any) (instance, error) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{method.Alg()}), jwt.WithExpirationRequired())
	j := &jwtInstance{key: verify, parser: parser}
	for i := range min(p.size, maxSigned) {
		c := claims{
			Scope: fmt.Sprintf("view:site/%d track:site/%[1]d", site(i)),
			RegisteredClaims: jwt.RegisteredClaims{
				ID: string(p.token(i)), Subject: string(p.account(i / perAccount)), ExpiresAt: jwt.NewNumericDate(end),
			},
		}
		good, err := jwt.NewWithClaims(method, c).SignedString(ours)
		if err != nil {
			return nil, err
		}
		foreign, err := jwt.NewWithClaims(method, c).SignedString(theirs)
		if err != nil {
			return nil, err
		}
		j.good, j.foreign = append(j.good, good), append(j.foreign, foreign)
	}
	return j, nil
}

func (j *jwtInstance) stop() error { return nil }

func (j *jwtInstance) facts() (facts, error) {
	return facts{what: "none", version: moduleVersion("github.com/golang-jwt/jwt/v5")}, nil
}

func (j *jwtInstance) session() (checker, error) {
	s := &jwtSession{jwtInstance: j, garbage: make([]string, len(j.good))}
	for i, scopes := range siteScopes("view") {
		s.need[i] = scopes[0].String()
	}
	for i, token := range j.good {
		s.garbage[i] = strings.Replace(token, ".", "-", 1)
	}
	return s, nil
}

type jwtSession struct {
	*jwtInstance
	garbage []string
	need    [sites]string
	kind    Kind
	claims  claims
}

func (s *jwtSession) close() error { return nil }

// ask sets the kind of the next questions: a JWT replaces the secret.
func (s *jwtSession) ask(k Kind) { s.kind = k }

func (s *jwtSession) check(q query) (bool, error) {
	i := q.token % len(s.good)
	token := s.good[i]
	switch s.kind {
	case Miss:
		token = s.foreign[i]
	case Garbage:
		token = s.garbage[i]
	}
	s.claims = claims{}
	t, err := s.parser.ParseWithClaims(token, &s.claims, func(*jwt.Token) (any, error) { return s.key, nil })
	if err != nil || !t.Valid {
		return false, nil // every error is a refusal
	}
	need := s.need[i%sites]
	for scope := range strings.FieldsFuncSeq(s.claims.Scope, func(r rune) bool { return r == ' ' }) {
		if scope == need {
			return true, nil
		}
	}
	return false, nil
}
