SELECT
    album.AlbumId AS album_id,
    album.Title AS title,
    artist.Name AS artist,
    /* Aggregated from ordered subqueries: the same album must always make the same prompt. */
    (SELECT group_concat(name, ', ')
       FROM (SELECT DISTINCT genre.Name AS name
               FROM Track AS track JOIN Genre AS genre ON genre.GenreId = track.GenreId
              WHERE track.AlbumId = album.AlbumId ORDER BY genre.Name)) AS genres,
    (SELECT group_concat(line, char(10))
       FROM (SELECT '- ' || track.Name
                    || CASE WHEN track.Composer IS NULL THEN '' ELSE ' (' || track.Composer || ')' END
                    || ', ' || printf('%d min %02d s', track.Milliseconds / 60000, track.Milliseconds / 1000 % 60)
                    AS line
               FROM Track AS track WHERE track.AlbumId = album.AlbumId ORDER BY track.TrackId)) AS tracks,
    totals.track_count AS track_count,
    totals.minutes AS minutes,
    totals.price AS price
FROM Album AS album
JOIN Artist AS artist ON artist.ArtistId = album.ArtistId
JOIN (SELECT AlbumId,
             count(*) AS track_count,
             CAST(round(sum(Milliseconds) / 60000.0) AS INTEGER) AS minutes,
             printf('%.2f', sum(UnitPrice)) AS price
        FROM Track GROUP BY AlbumId) AS totals ON totals.AlbumId = album.AlbumId
