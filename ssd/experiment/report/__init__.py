"""`ssd report`: what the finished cells of an experiment come to, as pages for people and tables for programs.

=================  ==================================================================================
`results`          the finished cells, and every number of each by name
`statistics`       mean and spread over seeds, paired differences and their intervals
`claims`           verdicts on what was written down before the runs
`words`            how measures are called and their values written
`document`         headings, tables and pictures, independent of how they are written
`pages`            a document as Markdown, and as one HTML file with everything in it
`room`             what could be gained at all, from the reference rows
`pictures`         curves and maps
`sections`         the document of an experiment
`write`            everything into a folder
=================  ==================================================================================
"""
