package projector

import (
	"bytes"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// recentIDs holds the highest token IDs. An ID begins with the time of its
// creation, so nearly all new tokens have a higher ID than nearly all others.
// For these, recentIDs says that they do not exist yet. Badger is slowest for
// keys that do not exist.
type recentIDs struct {
	ids  map[[16]byte]struct{}
	from [16]byte // ids holds all token IDs from here on
	max  int      // bounds len(ids)
}

// maxRecentIDs bounds the number of IDs. If more tokens than that are created
// after a token got its ID and before its own event, Badger is asked for the
// token.
const maxRecentIDs = 1 << 16

// loadRecentIDs reads the highest limit/2 IDs, so that there is room for more.
func loadRecentIDs(tx *badger.Txn, limit int) (n recentIDs, err error) {
	defer recovered(&err)
	n = recentIDs{ids: map[[16]byte]struct{}{}, max: limit}
	opt := badger.DefaultIteratorOptions
	opt.Reverse, opt.PrefetchValues = true, false
	it := tx.NewIterator(opt)
	defer it.Close()
	prefix := []byte(prefixToken)
	for it.Seek(append(bytes.Clone(prefix), 0xff)); it.ValidForPrefix(prefix); it.Next() {
		id, err := tokenIn(it.Item().Key()[len(prefix):])
		if err != nil {
			return n, err
		}
		n.ids[id] = struct{}{}
		if len(n.ids) >= limit/2 {
			n.from = id
			break
		}
	}
	return n, nil
}

// has reports whether a token exists. sure is false if only Badger knows.
func (n *recentIDs) has(id events.TokenID) (exists, sure bool) {
	b := id.Bytes()
	if bytes.Compare(b[:], n.from[:]) < 0 {
		return false, false
	}
	_, exists = n.ids[b]
	return exists, true
}

// add adds the ID of a new token. If there are too many, it drops the lower
// half.
func (n *recentIDs) add(id events.TokenID) {
	b := id.Bytes()
	if bytes.Compare(b[:], n.from[:]) < 0 {
		return
	}
	n.ids[b] = struct{}{}
	if len(n.ids) <= n.max {
		return
	}
	all := make([][16]byte, 0, len(n.ids))
	for b := range n.ids {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	lower := all[:len(all)/2]
	for _, b := range lower {
		delete(n.ids, b)
	}
	n.from = all[len(lower)]
}
