WITH bought AS (
    /* Artists by way of albums: the shop sells tracks. */
    SELECT invoice.CustomerId AS customer_id, artist.Name AS artist, genre.Name AS genre, line.Quantity AS quantity
    FROM Invoice AS invoice
    JOIN InvoiceLine AS line ON line.InvoiceId = invoice.InvoiceId
    JOIN Track AS track ON track.TrackId = line.TrackId
    JOIN Album AS album ON album.AlbumId = track.AlbumId
    JOIN Artist AS artist ON artist.ArtistId = album.ArtistId
    LEFT JOIN Genre AS genre ON genre.GenreId = track.GenreId
)
SELECT
    customer.CustomerId AS customer_id,
    customer.FirstName AS first_name,
    customer.City AS city,
    customer.State AS state,
    customer.Country AS country,
    date(orders.first_order) AS first_order,
    orders.orders AS orders,
    printf('%.2f', orders.total) AS total,
    (SELECT sum(quantity) FROM bought WHERE bought.customer_id = customer.CustomerId) AS tracks_bought,
    (SELECT group_concat(artist || ' (' || tracks || ')', ', ')
       FROM (SELECT artist, sum(quantity) AS tracks FROM bought
              WHERE bought.customer_id = customer.CustomerId
              GROUP BY artist ORDER BY tracks DESC, artist)) AS artists,
    (SELECT group_concat(genre || ' (' || tracks || ')', ', ')
       FROM (SELECT genre, sum(quantity) AS tracks FROM bought
              WHERE bought.customer_id = customer.CustomerId
              GROUP BY genre ORDER BY tracks DESC, genre)) AS genres
FROM Customer AS customer
JOIN (SELECT CustomerId, count(*) AS orders, sum(Total) AS total, min(InvoiceDate) AS first_order
        FROM Invoice GROUP BY CustomerId) AS orders ON orders.CustomerId = customer.CustomerId
