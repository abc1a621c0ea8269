// Package disk writes files that survive a crash, locks folders, and measures
// free space. [SecretRule] decides by its mode whether a file with a secret is read.
//
// [Replace], [ReplaceExclusive] and [Create] write a file as a whole: after a
// crash at any moment the path holds the old content or the new content. They
// return only after the content and its name are on disk. Every file has mode
// 0600. They follow no symbolic link: the new file takes the link's place.
package disk
