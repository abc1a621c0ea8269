package projector

import (
	"bytes"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// recentIDs holds the highest of all token ids. An id begins with the time of its
// creation, so a new token nearly always has a higher id than nearly all others.
// Whether it exists is then known without Badger, which is slowest if the answer
// is no.
type recentIDs struct {
	ids map[[16]byte]struct{}
	// from is where the ids begin: every token's id from there on is among them.
	from [16]byte
	most int // ids that are held
}

// mostNewest bounds how many ids are held, and so by how many others a token's
// creation may be overtaken.
const mostNewest = 1 << 16

// loadNewest reads the higher half of what may be held.
func loadNewest(tx *badger.Txn, most int) (n recentIDs, err error) {
	defer recovered(&err)
	n = recentIDs{ids: map[[16]byte]struct{}{}, most: most}
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
		if len(n.ids) >= most/2 {
			n.from = id
			break
		}
	}
	return n, nil
}

// has reports whether a token exists; sure is false where that is not known here.
func (n *recentIDs) has(id events.TokenID) (exists, sure bool) {
	b := id.Bytes()
	if bytes.Compare(b[:], n.from[:]) < 0 {
		return false, false
	}
	_, exists = n.ids[b]
	return exists, true
}

// add adds a token's id.
func (n *recentIDs) add(id events.TokenID) {
	b := id.Bytes()
	if bytes.Compare(b[:], n.from[:]) < 0 {
		return
	}
	n.ids[b] = struct{}{}
	if len(n.ids) <= n.most {
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
