package bench

import (
	"fmt"
	"math/rand/v2"
)

// Kind is what is asked about.
type Kind string

// The kinds.
const (
	Hit     Kind = "hit"     // a live token that has the scope: allowed
	Miss    Kind = "miss"    // a well-formed secret that is no token's
	Garbage Kind = "garbage" // a secret with a mistake in it, which its checksum tells
	Revoked Kind = "revoked" // a token that was revoked
)

// Spread is how often each token is asked about.
type Spread string

// The spreads.
const (
	Uniform Spread = "uniform" // each as often
	Zipf    Spread = "zipf"    // by Zipf's law: some thousands of times as often as others
)

// zipfExponent is above 1, as the generator wants it.
const zipfExponent = 1.1

// draws returns how many questions are drawn: each token has its turn several
// times, or enough have that they do not stay in the processor's caches.
func draws(size int) int { return min(1<<20, 4*size) }

// query is one question: may this secret view this site?
type query struct {
	secret string
	token  int // whose it is; only its site counts where it is nobody's
}

// workload is a fixed run of questions, and what the answer to all of them is.
type workload struct {
	kind Kind
	// text holds the secrets one after another, so that the collector has
	// nothing to follow.
	text   string
	tokens []uint32
}

func (w *workload) len() int { return len(w.tokens) }

func (w *workload) at(i int) query {
	return query{w.text[i*secretLength:][:secretLength], int(w.tokens[i])}
}

// newWorkload draws n questions about a population.
func newWorkload(p *population, kind Kind, spread Spread, n int) (*workload, error) {
	rng := rand.New(p.draw(domainDraw, 0))
	next := func() int { return rng.IntN(p.size) }
	if spread == Zipf {
		z := rand.NewZipf(rng, zipfExponent, 1, uint64(p.size-1))
		next = func() int { return int(z.Uint64()) }
	}
	w := &workload{kind: kind, tokens: make([]uint32, n)}
	text := make([]byte, 0, n*secretLength)
	for i := range w.tokens {
		token := next()
		switch {
		case kind == Revoked:
			token = min(token|(revokedEvery-1), p.size/revokedEvery*revokedEvery-1)
		case p.revoked(token):
			token--
		}
		w.tokens[i] = uint32(token)
		if kind == Miss {
			text = p.stranger(text, token)
			continue
		}
		text = p.secret(text, token)
		if kind == Garbage {
			at := len(text) - secretLength + len("tlu_") + i%32
			text[at] = base62[(indexOf(text[at])+1+i%61)%62]
		}
	}
	if len(text) != n*secretLength {
		return nil, fmt.Errorf("%d secrets have %d characters, want %d each", n, len(text), secretLength)
	}
	w.text = string(text)
	return w, nil
}

func indexOf(c byte) int {
	for i := range len(base62) {
		if base62[i] == c {
			return i
		}
	}
	return 0
}
