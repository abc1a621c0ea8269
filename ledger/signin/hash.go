package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/tokenledger/tokenledger/ledger"
)

// Cost is how much work a hash is (argon2id, RFC 9106 section 3.1).
type Cost struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// DefaultCost is the minimum that OWASP recommends: 19 MiB, two passes, one thread.
var DefaultCost = Cost{Memory: 19 << 10, Passes: 2, Threads: 1}

// maxCost limits the parameters in a stored hash, so that a damaged one costs no
// more.
var maxCost = Cost{Memory: 1 << 20, Passes: 16, Threads: 16}

// ErrBusy reports that too many hashes wait. It is a [ledger.ErrUnavailable]:
// nothing was done.
var ErrBusy = fmt.Errorf("%w: too many sign-ins are in progress; nothing was done; retry", ledger.ErrUnavailable)

const (
	saltLength = 16 // bytes
	hashLength = 32 // bytes
	// maxWaitingHashes limits the hashes that wait. With more, the wait would be
	// longer than people wait, and would cost more than the hash.
	maxWaitingHashes = 16
)

// hasher computes and checks password hashes, a few at a time.
type hasher struct {
	cost  Cost
	queue *hashQueue
	done  atomic.Uint64
	dummy string // the hash of no password, for accounts without one
}

func newHasher(cost Cost) *hasher {
	h := &hasher{cost: cost, queue: newHashQueue(max(1, runtime.GOMAXPROCS(0)/2), maxWaitingHashes)}
	// No password has a random hash.
	h.dummy = h.format(cost, randomBytes(saltLength), randomBytes(hashLength))
	return h
}

// argon computes one hash when the queue lets the payer.
func (h *hasher) argon(ctx context.Context, by payer, cost Cost, password, salt []byte) ([]byte, error) {
	if err := h.queue.acquire(ctx, by); err != nil {
		return nil, err
	}
	defer h.queue.release()
	h.done.Add(1)
	return argon2.IDKey(password, salt, cost.Passes, cost.Memory, cost.Threads, hashLength), nil
}

// hash returns a password's PHC string.
func (h *hasher) hash(ctx context.Context, by payer, password []byte) (string, error) {
	salt := randomBytes(saltLength)
	sum, err := h.argon(ctx, by, h.cost, password, salt)
	if err != nil {
		return "", err
	}
	return h.format(h.cost, salt, sum), nil
}

// check reports whether a password matches a PHC string, and whether the string has
// outdated parameters. An empty string matches no password, and costs the same.
func (h *hasher) check(ctx context.Context, by payer, phc string, password []byte) (ok, outdated bool, err error) {
	noPassword := phc == ""
	if noPassword {
		phc = h.dummy
	}
	cost, salt, want, err := parsePHC(phc)
	if err != nil {
		return false, false, err
	}
	got, err := h.argon(ctx, by, cost, password, salt)
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(got, want) == 1 && !noPassword
	return ok, ok && cost != h.cost, nil
}

var phcEncoding = base64.RawStdEncoding.Strict()

func (h *hasher) format(c Cost, salt, sum []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Passes, c.Threads,
		phcEncoding.EncodeToString(salt), phcEncoding.EncodeToString(sum))
}

var errBadHash = errors.New("the stored password hash is damaged; invite the person again")

func parsePHC(s string) (c Cost, salt, sum []byte, err error) {
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errBadHash
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &c.Memory, &c.Passes, &c.Threads); err != nil {
		return c, nil, nil, errBadHash
	}
	if c.Memory == 0 || c.Passes == 0 || c.Threads == 0 || c.Memory > maxCost.Memory || c.Passes > maxCost.Passes ||
		c.Threads > maxCost.Threads {
		return c, nil, nil, errBadHash
	}
	salt, err1 := phcEncoding.DecodeString(part[4])
	sum, err2 := phcEncoding.DecodeString(part[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(sum) != hashLength {
		return c, nil, nil, errBadHash
	}
	return c, salt, sum, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // does not fail
	return b
}

// BusyWait is how long a caller should wait after [ErrBusy].
const BusyWait = 2 * time.Second
