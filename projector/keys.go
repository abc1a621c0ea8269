package projector

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/tokenledger/tokenledger/events"
)

// Keys and their prefixes. The package's documentation lists their values.
const (
	prefixDigest     = "d/"
	prefixToken      = "t/"
	prefixAccount    = "a/"
	prefixOwned      = "o/"
	prefixCommand    = "k/"
	prefixShard      = "l/"
	prefixReceipt    = "r/"
	prefixSecretless = "b/"
	prefixSession    = "s/"
	prefixVoid       = "v/"
	keyCursor        = "c"
	keyPolicy        = "p"
	keyMatomo        = "m"
)

// schemeSHA256 precedes each digest in a key. Digests of every scheme so far are a
// SHA-256, and those of different schemes are of different texts. A digest of
// another length would get another number. It is stored; numbers are never reused.
const schemeSHA256 = 1

const digestKeyLen = len(prefixDigest) + 1 + len(events.Digest{})

func digestKey(d events.Digest) []byte {
	return appendDigestKey(make([]byte, 0, digestKeyLen), d)
}

func appendDigestKey(k []byte, d events.Digest) []byte {
	k = append(k, prefixDigest...)
	k = append(k, schemeSHA256)
	return append(k, d[:]...)
}

// digestIn returns the digest in the key of a secret's record.
func digestIn(key []byte) (events.Digest, error) {
	if len(key) != digestKeyLen {
		return events.Digest{}, fmt.Errorf("%w: the key of a secret has %d bytes, want %d", ErrCorrupt, len(key), digestKeyLen)
	}
	return events.Digest(key[len(prefixDigest)+1:]), nil
}

func tokenKey(id events.TokenID) []byte {
	b := id.Bytes()
	return append([]byte(prefixToken), b[:]...)
}

func secretlessKey(id events.TokenID) []byte {
	b := id.Bytes()
	return append([]byte(prefixSecretless), b[:]...)
}

// tokenIn returns the token ID in a key whose prefix the caller has removed.
func tokenIn(id []byte) ([16]byte, error) {
	if len(id) != 16 {
		return [16]byte{}, fmt.Errorf("%w: a key has a token ID of %d bytes, want 16", ErrCorrupt, len(id))
	}
	return [16]byte(id), nil
}

func accountKey(id events.AccountID) []byte {
	b := id.Bytes()
	return append([]byte(prefixAccount), b[:]...)
}

// ownedPrefix returns the prefix of the keys that list an account's tokens.
func ownedPrefix(account events.AccountID) []byte {
	b := account.Bytes()
	return append([]byte(prefixOwned), b[:]...)
}

func ownedKey(account events.AccountID, token events.TokenID) []byte {
	t := token.Bytes()
	return append(ownedPrefix(account), t[:]...)
}

func commandKey(k events.CommandKey) []byte { return append([]byte(prefixCommand), k...) }

func shardKey(shard string) []byte { return append([]byte(prefixShard), shard...) }

func receiptKey(coveredPos events.Position) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefixReceipt), uint64(coveredPos))
}

func sessionKey(id events.SessionID) []byte {
	b := id.Bytes()
	return append([]byte(prefixSession), b[:]...)
}

func voidKey(pos events.Position) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefixVoid), uint64(pos))
}

// seal appends the check value of key and value to value.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint64(value, checkValue(key, value))
}

// unseal verifies and removes the check value.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 8
	if n < 0 || binary.BigEndian.Uint64(sealed[n:]) != checkValue(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: the record with the key prefix %.2q does not match its check value", ErrCorrupt, key)
	}
	return sealed[:n], nil
}

func checkValue(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64()
}
