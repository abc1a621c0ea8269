package bench

import (
	"fmt"
	"math/rand/v2"
)

// Kind is the kind of a question.
type Kind string

// The kinds.
const (
	Hit     Kind = "hit"     // a live token that has the scope: allowed
	Miss    Kind = "miss"    // a well-formed secret that no token has
	Garbage Kind = "garbage" // a secret with a wrong checksum
	Revoked Kind = "revoked" // a token that was revoked
)

// Spread is the distribution of questions over tokens.
type Spread string

// The spreads.
const (
	Uniform Spread = "uniform" // all equally often
	Zipf    Spread = "zipf"    // by Zipf's law: some tokens thousands of times as often as others
)

// zipfExponent must be above 1 for the generator.
const zipfExponent = 1.1

// draws returns the number of questions: enough that each token appears several
// times, or that the tokens do not fit in the caches of the processor.
func draws(size int) int { return min(1<<20, 4*size) }

// query is one question: may this secret view this site?
type query struct {
	secret string
	token  int // whose secret it is; if no token has it, only the site of this token is used
}

// workload is a fixed sequence of questions, with one expected answer.
type workload struct {
	kind Kind
	// text has all secrets in one string, so that the garbage collector has no
	// pointers to follow.
	text   string
	tokens []uint32
}

func (w *workload) len() int { return len(w.tokens) }

func (w *workload) at(i int) query {
	return query{w.text[i*secretLength:][:secretLength], int(w.tokens[i])}
}

// newWorkload chooses n questions about a population.
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
